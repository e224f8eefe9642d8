"""A halt in the middle of an answer, over a real engine: its work stops within a step, and what it did is paid for."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing

import pytest

from engine.api import EngineStats, SamplingParams
from router.aborted_prompts import AbortedPrompts
from router.answer_events import AnswerEvent, Ended, Finished, Text
from router.config.failover import FailoverConfig
from router.generation.generate import Generation, generate
from router.guard.moderated_answers import moderate
from router.inference_request import InferenceRequest
from router.ledger.max_usage import prompt_tokens
from router.memory_store import MemoryStore
from router.openai.completions_writer import CompletionWriter
from router.ports.clock import SystemClock
from router.usage_meter import UsageMeter
from safety.api import (
    Action,
    AnswerGuard,
    Moderation,
    Passage,
    PolicyAdmin,
    Ruling,
    Scan,
    Scores,
    Span,
    Subject,
    TextUse,
    Verdict,
)
from safety.streaming.answer_guard import PlannedGuard
from safety.streaming.plan import ClassifierRule, Pace, ScannerRule, StreamPlan
from tests.router.engines import EngineBackend
from tests.router.served import Served

LENGTH = 40
"""The characters after which the checks of these tests halt a text."""
TOKENS = 400
LAG = 2
"""The tokens of a sequence that may be generated behind the halt: those of the step that runs when the abort arrives,
and those of the step before, whose deltas are on their way."""
PAUSE_S = 0.1
"""What the engine waits after each step once a halt is due. On a busy machine the steps of a model as small as this one
are shorter than a turn of the event loop."""


class LengthScanner:
    """Finds the character at ``LENGTH`` of each text. Implements ``StreamScanner``."""

    def __init__(self, on_found: Callable[[], None]) -> None:
        self._length = 0
        self._on_found = on_found

    def push(self, piece: str, *, final: bool = False) -> Scan:
        before, self._length = self._length, self._length + len(piece)
        if not before <= LENGTH < self._length:
            return Scan((), self._length)
        self._on_found()
        return Scan((Span(LENGTH, LENGTH + 1, "LONG"),), self._length)


class LengthClassifier:
    """Flags texts that are longer than ``LENGTH``. Implements ``TextClassifier``."""

    version = "length-1"

    def __init__(self, on_found: Callable[[], None]) -> None:
        self._on_found = on_found

    async def classify(self, texts: Sequence[str], tenant: str = "", *, urgent: bool = False) -> Sequence[Scores]:
        await asyncio.sleep(0.001)
        if flagged := len(texts[0]) > LENGTH:
            self._on_found()
        return [Scores({"length": 1.0 if flagged else 0.0}, 0.0, flagged)]


def judge(scores: Scores) -> Verdict | None:
    return Verdict("length", "1", Action.BLOCK, "length") if scores.flagged else None


class Halting:
    """A guard that halts each text after ``LENGTH`` characters, and the engine's counters at the first halt.

    From then on the engine waits for ``pause_s`` after each step.
    """

    def __init__(self, backend: EngineBackend, by: str, pause_s: float = 0.0) -> None:
        self._backend = backend
        self._pause_s = pause_s
        self.at_halt: EngineStats | None = None
        if by == "scanner":
            rule = ScannerRule("length", "1", lambda: LengthScanner(self._found), Action.BLOCK)
            plan = StreamPlan((rule,))
        else:
            pace = Pace(window=1000)
            classifier = ClassifierRule(
                LengthClassifier(self._found),
                judge,
                mode=by,  # type: ignore[arg-type]
                pace=pace,
            )
            plan = StreamPlan((), classifier)
        self.guard: AnswerGuard = PlannedGuard(plan, lambda *_: None, message="No.")

    def _found(self) -> None:
        self._backend.pause_s = self._pause_s
        self.at_halt = self.at_halt or self._backend.engine.stats()


def request(prompts: Sequence[str], **sampling: int) -> InferenceRequest:
    """A request whose answers are longer than they may get."""
    params = SamplingParams(max_tokens=TOKENS, ignore_eos=True, temperature=1.0, seed=7, **sampling)  # type: ignore[arg-type]
    return InferenceRequest("fast", prompts, params, "prompt", CompletionWriter)


async def answers(
    backend: EngineBackend, asked: InferenceRequest, guard: AnswerGuard, meter: UsageMeter
) -> list[AnswerEvent]:
    """The events of the request under the guard."""
    aborts = AbortedPrompts()
    events: AsyncGenerator[Sequence[AnswerEvent], None]
    # An id of its own, as in the service: the end of an aborted request would end the next one with its id.
    account = uuid.uuid4().hex
    work = Generation(backend, "fast", asked, "acme", FailoverConfig(), meter, prompt_tokens, account, "", aborts)
    events = generate(work)
    prompts = [place for place in range(len(asked.prompts)) for _ in range(asked.sampling.n)]
    found: list[AnswerEvent] = []
    async with asyncio.timeout(60), aclosing(moderate(events, guard, meter, prompts, aborts)) as batches:
        async for batch in batches:
            found += batch
    assert asyncio.all_tasks() == {asyncio.current_task()}
    return found


def settled(backend: EngineBackend) -> EngineStats:
    """The engine's counters once nothing runs. It has no pauses from then on."""
    backend.pause_s = 0.0
    for _ in range(1000):
        if not (stats := backend.engine.stats()).running:
            return stats
        time.sleep(0.005)
    raise AssertionError("the engine goes on")


@pytest.mark.parametrize("by", ["scanner", "hold", "beside"])
@pytest.mark.parametrize("count", [1, 3])
def test_a_halt_stops_the_engine_within_a_step_and_is_paid_for_to_the_token(
    backend: EngineBackend, by: str, count: int
) -> None:
    before, halting, meter = settled(backend), Halting(backend, by, PAUSE_S), UsageMeter()

    events = asyncio.run(answers(backend, request(["Once upon a time"], n=count), halting.guard, meter))

    after, generated = settled(backend), settled(backend).generated_tokens - before.generated_tokens
    assert [event.reason.value for event in events if isinstance(event, Ended)] == ["content_filter"] * count
    for choice in range(count):
        sent = "".join(event.text for event in events if isinstance(event, Text) and event.choice == choice)
        assert sent.endswith("No.")
        assert len(sent) <= LENGTH + len("No.") or by == "beside"
    assert after.aborted == before.aborted + 1
    assert after.blocks_used == 0
    assert isinstance(events[-1], Finished)
    assert events[-1].usage.completion_tokens == generated == meter.total.usage.completion_tokens
    assert meter.total.exact
    assert generated < TOKENS
    if count == 1:
        assert halting.at_halt is not None
        assert after.generated_tokens - halting.at_halt.generated_tokens <= LAG
        assert after.steps - halting.at_halt.steps <= LAG + 1


class OnePromptGuard:
    """Halts the choices that ``guard`` moderates; the others pass. Choices are moderated in the order of ``halted``."""

    def __init__(self, guard: AnswerGuard, halted: Sequence[bool]) -> None:
        self._guard = guard
        self._halted = iter(halted)

    def __getattr__(self, name: str) -> object:
        return getattr(self._guard, name)

    def moderator(self, *args: object) -> object:
        return self._guard.moderator(*args) if next(self._halted) else None  # type: ignore[arg-type]


@pytest.mark.parametrize("by", ["scanner", "hold"])
def test_a_halted_prompt_stops_while_the_other_goes_on(backend: EngineBackend, by: str) -> None:
    before, halting, meter = settled(backend), Halting(backend, by), UsageMeter()
    guard: AnswerGuard = OnePromptGuard(halting.guard, [True, False])  # type: ignore[assignment]

    events = asyncio.run(answers(backend, request(["Once upon a time", "The end"]), guard, meter))

    after = settled(backend)
    reasons = sorted(event.reason.value for event in events if isinstance(event, Ended))
    assert reasons == ["content_filter", "length"]
    assert after.aborted == before.aborted + 1
    assert isinstance(events[-1], Finished)
    generated = after.generated_tokens - before.generated_tokens
    assert events[-1].usage.completion_tokens == generated == meter.total.usage.completion_tokens
    assert TOKENS < generated < 2 * TOKENS


class HaltingGuard:
    """Lets requests pass and halts their answers. Implements ``Guard``."""

    classifier = ""
    admin: PolicyAdmin | None = None

    def __init__(self) -> None:
        self.answer_guard: AnswerGuard | None = None

    async def drops_turns(self, tenant: str) -> bool:
        return False

    async def speculates(self, tenant: str) -> Sequence[str] | None:
        return None

    async def inspect(
        self,
        subject: Subject,
        passages: Sequence[Passage],
        tools: Sequence[str] = (),
        *,
        use: TextUse = TextUse.GENERATION,
    ) -> Ruling:
        return Ruling(Action.ALLOW, tuple(passage.text for passage in passages))

    async def moderate(self, subject: Subject, texts: Sequence[str], *, urgent: bool = True) -> Sequence[Moderation]:
        raise NotImplementedError

    async def answers(self, *_: object, **__: object) -> AnswerGuard | None:
        return self.answer_guard


@pytest.fixture(scope="module")
def halted() -> Iterator[tuple[Served, HaltingGuard, MemoryStore]]:
    """A router whose answers are halted."""
    guard, store = HaltingGuard(), MemoryStore(SystemClock())
    served = Served(store=store, guard=guard)
    yield served, guard, store
    served.stop()


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize("stream", [True, False])
def test_a_halted_response_is_whole_and_in_the_ledger(
    backend: EngineBackend, halted: tuple[Served, HaltingGuard, MemoryStore], path: str, stream: bool
) -> None:
    served, guard, store = halted
    served.backend = backend  # type: ignore[assignment]
    guard.answer_guard, before = Halting(backend, "hold").guard, settled(backend)
    asked = {"messages": [{"role": "user", "content": "Hi"}]} if "chat" in path else {"prompt": "Once"}
    more = {"stream_options": {"include_usage": True}} if stream else {}

    body = {"model": "fast", "max_tokens": TOKENS, "ignore_eos": True, "stream": stream, **asked, **more}
    response = served.http.post(path, json=body)

    assert response.status_code == 200
    if stream:
        lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line]
        assert lines[-1] == "[DONE]"
        documents = [json.loads(line) for line in lines[:-1]]
    else:
        documents = [response.json()]
    ended = [choice["finish_reason"] for document in documents for choice in document["choices"]]
    assert ended[-1] == "content_filter"
    assert set(ended[:-1]) <= {None}
    generated = settled(backend).generated_tokens - before.generated_tokens
    [entry] = [json.loads(each.document) for each in store._entries.values()]
    assert documents[-1]["usage"]["completion_tokens"] == entry["output_tokens"] == generated < TOKENS
    assert (entry["outcome"], entry["exact"]) == ("finished", True)
    store._entries.clear()
