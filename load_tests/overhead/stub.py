"""An engine that thinks of nothing: one token per step for every live request, so that only the graph costs anything.

It keeps the contract of ``engine.AsyncEngine``: a thread of its own, one call of ``on_step`` per step, deltas in order,
finish reason and usage on the last one, no delta for what was aborted.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat

from engine.api import (
    Conversation,
    Delta,
    EngineDeadError,
    EngineLoad,
    EngineStats,
    FinishReason,
    GenerationRequest,
    Grammar,
    ModelInfo,
    Priority,
    RequestError,
    StepFacts,
    TtftObjective,
    Usage,
)
from engine.metrics import EngineMetrics, Recorder

OnStep = Callable[[Sequence[Delta]], None]

CONTEXT = 1024  # tokens
TEXT, TOKEN = " tok", 7
WORDS = (
    " the",
    " old",
    " town",
    " was",
    " built",
    " on",
    " a",
    " river.",
    " Its",
    " market",
    " sold",
    " bread,",
    " music",
)
"""The words of varied answers: five characters each, as tokens of English have."""


@dataclass(slots=True)
class Stream:
    """One live request."""

    prompt_tokens: int
    limit: int
    words: Iterator[str]
    sent: int = 0


@dataclass(slots=True)
class Counters:
    """What has happened so far."""

    steps: int = 0
    prompt_tokens: int = 0
    generated: int = 0
    finished: int = 0
    aborted: int = 0


class StubEngine:
    """Emits " tok" for each live request once per step of ``step_s`` seconds; sleeps when there is none.

    ``varied``: it emits words at random instead, so that no two answers are equal and no check has read one before.
    """

    def __init__(self, on_step: OnStep, step_s: float = 0.01, *, varied: bool = False) -> None:
        self._on_step = on_step
        self._varied = varied
        self._step_s = step_s
        self._thread = threading.Thread(target=self._run, name="stub-engine", daemon=True)
        self._changed = threading.Condition()
        # Under the condition's lock:
        self._live: dict[str, Stream] = {}
        self._counters = Counters()
        self._closing = False

    @property
    def model_info(self) -> ModelInfo:
        """A model that is not there."""
        return ModelInfo("stub", CONTEXT, 8)

    def start(self) -> None:
        """Starts the thread; once."""
        self._thread.start()

    def close(self) -> None:
        """Ends the thread; what is left ends with an ABORT delta. May be called again."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    def submit(self, request: GenerationRequest) -> None:
        """Raises RequestError for an id in use and EngineDeadError when closed."""
        words = random_words(request.request_id) if self._varied else repeat(TEXT)
        limit = request.sampling.max_tokens or CONTEXT
        stream = Stream(prompt_tokens(request), limit, words, len(request.resume))
        with self._changed:
            if self._closing:
                raise EngineDeadError("The engine is not running.")
            if request.request_id in self._live:
                raise RequestError(f"request_id {request.request_id!r} is in use", "request_id")
            self._live[request.request_id] = stream
            self._counters.prompt_tokens += stream.prompt_tokens
            self._changed.notify()

    def knows_grammar(self, grammar: Grammar) -> bool:
        """It compiles none."""
        return True

    def expect(self, objectives: Mapping[Priority, TtftObjective]) -> None:
        """It counts no request as late."""

    def abort(self, request_ids: Iterable[str]) -> None:
        """Gives requests up; unknown ids are ignored. A step under way may still bring one last delta."""
        with self._changed:
            for request_id in request_ids:
                self._counters.aborted += self._live.pop(request_id, None) is not None

    def stats(self) -> EngineStats:
        """Everything runs, nothing waits."""
        with self._changed:
            done = self._counters
            return EngineStats(
                running=len(self._live),
                waiting=0,
                blocks_total=CONTEXT,
                blocks_used=len(self._live),
                blocks_cached=0,
                steps=done.steps,
                prompt_tokens=done.prompt_tokens,
                cached_tokens=0,
                generated_tokens=done.generated,
                finished=done.finished,
                aborted=done.aborted,
                failed=0,
            )

    def load(self) -> EngineLoad:
        """Everything runs, nothing waits."""
        with self._changed:
            return EngineLoad(running=len(self._live))

    @property
    def last_step(self) -> StepFacts:
        """The step whose deltas were passed on last."""
        return StepFacts(self._counters.steps, len(self._live), 0, self._step_s)

    def metrics(self) -> EngineMetrics:
        """The statistics alone: no histogram has a value."""
        return Recorder().snapshot(self.stats(), {})

    def check_health(self) -> None:
        """Raises EngineDeadError as ``check_alive`` does."""
        self.check_alive()

    def check_alive(self) -> None:
        """Raises EngineDeadError unless the thread runs."""
        if self._closing or not self._thread.is_alive():
            raise EngineDeadError("The engine is not running.")

    def _run(self) -> None:
        due = time.monotonic()
        while self._await_work():
            # A grid, not a pause after each step: what on_step costs must not slow the steps, or it would hide itself.
            now = time.monotonic()
            due = max(due + self._step_s, now) if self._step_s else now
            if due > now:
                time.sleep(due - now)
            if deltas := self._step():
                self._on_step(deltas)
        with self._changed:
            left, self._live = list(self._live), {}
        if left:
            self._on_step([Delta(request_id, (), "", FinishReason.ABORT) for request_id in left])

    def _await_work(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._closing or self._live)
            return not self._closing

    def _step(self) -> list[Delta]:
        with self._changed:
            self._counters.steps += 1
            self._counters.generated += len(self._live)
            deltas = [self._advance(request_id, stream) for request_id, stream in list(self._live.items())]
            return deltas

    def _advance(self, request_id: str, stream: Stream) -> Delta:
        stream.sent += 1
        text = next(stream.words)
        if stream.sent < stream.limit:
            return Delta(request_id, (TOKEN,), text)
        del self._live[request_id]
        self._counters.finished += 1
        usage = Usage(stream.prompt_tokens, stream.sent, 0)
        return Delta(request_id, (TOKEN,), text, FinishReason.LENGTH, usage)


def random_words(seed: str) -> Iterator[str]:
    """Yields words without end, which follow from ``seed``."""
    draw = random.Random(seed)
    while True:
        yield draw.choice(WORDS)


def prompt_tokens(request: GenerationRequest) -> int:
    """Tokens of the prompt: ids as they are, and words of text."""
    if isinstance(request.prompt, tuple):
        return len(request.prompt)
    if isinstance(request.prompt, Conversation):
        return sum(len(message.content.split()) for message in request.prompt.messages)
    return len(request.prompt.split())
