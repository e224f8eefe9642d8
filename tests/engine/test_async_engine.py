"""The engine on its thread: it sleeps when idle, stops what is aborted, and says when it is dead."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from engine import (
    AsyncEngine,
    Delta,
    Engine,
    EngineDeadError,
    FinishReason,
    GenerationRequest,
    SamplingParams,
    async_engine,
)
from engine.api import OverloadedError, RequestError
from tests.engine.conftest import MakeEngine
from tests.engine.ranks import eventually

WAIT_S = 30.0
LONG = SamplingParams(temperature=0, max_tokens=200, ignore_eos=True)
SHORT = SamplingParams(temperature=0, max_tokens=5, ignore_eos=True)


def request(name: str, params: SamplingParams = SHORT) -> GenerationRequest:
    return GenerationRequest(name, (1, 2, 3), params)


class Steps:
    """Collects what the engine tells. ``gate`` holds the engine's thread between steps while it is clear."""

    def __init__(self) -> None:
        self.deltas: queue.Queue[Delta] = queue.Queue()
        self.gate = threading.Event()
        self.gate.set()
        self.told = threading.Event()

    def __call__(self, deltas: Sequence[Delta]) -> None:
        for delta in deltas:
            self.deltas.put(delta)
        self.told.set()
        assert self.gate.wait(WAIT_S)

    def until_end(self, name: str) -> list[Delta]:
        """The deltas of one request, those of others dropped."""
        found: list[Delta] = []
        while not found or found[-1].finish_reason is None:
            delta = self.deltas.get(timeout=WAIT_S)
            if delta.request_id == name:
                found.append(delta)
        return found


@pytest.fixture
def steps() -> Steps:
    return Steps()


@pytest.fixture
def running(make_engine: MakeEngine, steps: Steps) -> Iterator[AsyncEngine]:
    subject = AsyncEngine(make_engine(max_waiting=2, prefix_caching=False), steps)
    subject.start()
    yield subject
    steps.gate.set()
    subject.close()


def test_what_was_repaired_is_not_reported_while_nothing_comes(running: AsyncEngine, steps: Steps) -> None:
    running._engine._cache.groups[0].pool.allocate(3)  # a leak
    running.submit(request("a"))
    steps.until_end("a")

    eventually(lambda: running.stats().blocks_used == 0, "the statistics are those after the repair", WAIT_S)
    assert running.metrics().repairs == 1


@pytest.mark.usefixtures("clear_choices")
def test_answers_are_those_of_the_engine(running: AsyncEngine, steps: Steps, make_engine: MakeEngine) -> None:
    running.submit(request("a"))
    answer = [token for delta in steps.until_end("a") for token in delta.token_ids]

    assert tuple(answer) == make_engine().generate([(1, 2, 3)], SHORT)[0].token_ids


def test_many_threads_submit_at_once(make_engine: MakeEngine, steps: Steps) -> None:
    subject = AsyncEngine(make_engine(), steps)
    subject.start()
    threads = [threading.Thread(target=subject.submit, args=(request(str(n)),)) for n in range(16)]
    for thread in threads:
        thread.start()
    ended: set[str] = set()
    while len(ended) < 16:
        delta = steps.deltas.get(timeout=WAIT_S)
        if delta.finish_reason is not None:
            ended.add(delta.request_id)
    for thread in threads:
        thread.join(WAIT_S)
    subject.close()

    assert ended == set(map(str, range(16)))


class ObservedEngine(Engine):
    """Counts how often the thread looks for work; ``rest`` is set when it found none."""

    looks = 0
    rest = threading.Event()

    @property
    def has_work(self) -> bool:
        self.looks += 1
        if not super().has_work:
            self.rest.set()
        return super().has_work


def test_an_idle_engine_uses_no_cpu(model_path: Callable[[str], Path], steps: Steps) -> None:
    engine = ObservedEngine.from_pretrained(model_path("llama-tied"), kv_cache_tokens=1024)
    subject = AsyncEngine(engine, steps)
    subject.start()
    subject.submit(request("a"))
    steps.until_end("a")
    engine.rest.clear()
    subject.abort(["unknown"])  # one more turn, and then to sleep
    assert engine.rest.wait(WAIT_S)
    looks = engine.looks
    clock = cpu_clock("manta-engine")
    before = time.clock_gettime(clock)
    sum(range(5_000_000))  # this thread works meanwhile

    assert engine.looks - looks <= 1
    assert time.clock_gettime(clock) - before < 0.01
    subject.close()


def cpu_clock(name: str) -> int:
    """Clock of the CPU time of the thread of that name."""
    ident = next(thread.ident for thread in threading.enumerate() if thread.name == name)
    assert ident is not None
    return time.pthread_getcpuclockid(ident)


def test_abort_frees_blocks_within_one_step(running: AsyncEngine, steps: Steps) -> None:
    running.submit(request("a", LONG))
    running.submit(request("b", LONG))
    while running.stats().running < 2:
        steps.deltas.get(timeout=WAIT_S)
    steps.gate.clear()
    steps.told.clear()
    assert steps.told.wait(WAIT_S)  # a step has ended and the thread is held after it
    before = running.stats()
    running.abort(["a", "unknown"])
    steps.told.clear()
    steps.gate.set()
    assert steps.told.wait(WAIT_S)
    after = running.stats()

    assert after.steps - before.steps >= 1
    assert (after.running, after.aborted) == (1, 1)
    running.abort(["b"])


def test_an_abort_before_the_first_step_leaves_nothing(running: AsyncEngine, steps: Steps) -> None:
    steps.gate.clear()
    running.submit(request("first"))
    assert steps.told.wait(WAIT_S)
    running.submit(request("a", LONG))
    running.abort(["a"])
    running.submit(request("a"))  # the id is free again
    steps.gate.set()  # not before: the engine's thread would tell the abort first

    assert len(steps.until_end("a")) == 5


def test_a_full_queue_refuses(running: AsyncEngine, steps: Steps) -> None:
    steps.gate.clear()
    running.submit(request("first", LONG))
    assert steps.told.wait(WAIT_S)
    running.submit(request("a"))
    running.submit(request("b"))

    with pytest.raises(OverloadedError):
        running.submit(request("c"))
    assert running.stats().waiting == 2
    steps.gate.set()
    assert steps.until_end("b")
    running.abort(["first"])


def test_wrong_requests_are_refused_to_the_caller(running: AsyncEngine, steps: Steps) -> None:
    steps.gate.clear()
    running.submit(request("a", LONG))

    with pytest.raises(RequestError, match="in use"):
        running.submit(request("a"))
    with pytest.raises(RequestError, match="Token ids"):
        running.submit(GenerationRequest("b", (10**6,)))
    running.check_health()
    running.abort(["a"])


def test_closing_ends_what_is_left(make_engine: MakeEngine, steps: Steps) -> None:
    subject = AsyncEngine(make_engine(), steps)
    subject.start()
    subject.submit(request("a", LONG))
    assert steps.told.wait(WAIT_S)
    subject.close()
    subject.close()

    assert steps.until_end("a")[-1].finish_reason is FinishReason.ABORT
    with pytest.raises(EngineDeadError):
        subject.submit(request("b"))
    with pytest.raises(EngineDeadError):
        subject.check_health()


def test_a_dead_thread_is_told_to_all(model_path: Callable[[str], Path], steps: Steps) -> None:
    class Dying(Engine):
        def step(self) -> list[Delta]:
            raise MemoryError

    subject = AsyncEngine(Dying.from_pretrained(model_path("llama-tied"), kv_cache_tokens=1024), steps)
    subject.start()
    subject.submit(request("a"))
    last = steps.until_end("a")[-1]

    assert last.finish_reason is FinishReason.ERROR
    with pytest.raises(EngineDeadError, match="MemoryError"):
        subject.check_health()
    with pytest.raises(EngineDeadError):
        subject.submit(request("b"))
    subject.close()


def test_a_hung_step_is_unhealthy(model_path: Callable[[str], Path], steps: Steps) -> None:
    entered, release = threading.Event(), threading.Event()

    class Hanging(Engine):
        def step(self) -> list[Delta]:
            entered.set()
            assert release.wait(WAIT_S)
            return super().step()

    engine = Hanging.from_pretrained(model_path("llama-tied"), kv_cache_tokens=1024)
    subject = AsyncEngine(engine, steps, step_limit_s=0.0)
    subject.start()
    subject.check_health()
    subject.submit(request("a"))
    assert entered.wait(WAIT_S)

    with pytest.raises(EngineDeadError, match="A step"):
        subject.check_health()
    release.set()
    steps.until_end("a")
    subject.close()


def test_an_engine_not_started_is_unhealthy(make_engine: MakeEngine, steps: Steps) -> None:
    subject = AsyncEngine(make_engine(), steps)

    with pytest.raises(EngineDeadError):
        subject.check_health()
    subject.close()


def test_the_load_of_a_hung_step_grows_old_and_that_of_an_idle_engine_does_not(
    model_path: Callable[[str], Path], steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(async_engine, "LOAD_PERIOD_S", 0.0)
    entered, release = threading.Event(), threading.Event()

    class Hanging(Engine):
        def step(self) -> list[Delta]:
            entered.set()
            assert release.wait(WAIT_S)
            return super().step()

    subject = AsyncEngine(Hanging.from_pretrained(model_path("llama-tied"), kv_cache_tokens=1024), steps)
    subject.start()
    time.sleep(0.05)
    assert subject.load().age_s == 0.0
    subject.submit(request("a"))
    assert entered.wait(WAIT_S)
    before = subject.load().age_s
    time.sleep(0.05)
    assert subject.load().age_s >= before + 0.05
    release.set()
    steps.until_end("a")
    subject.close()
    assert subject.load().age_s < 0.05
