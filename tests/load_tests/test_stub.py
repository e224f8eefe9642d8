"""The stub engine keeps the engine's contract: what the graph costs around it, it costs around a real one."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from engine.api import Delta, EngineDeadError, FinishReason, GenerationRequest, RequestError, SamplingParams
from load_tests.overhead.stub import StubEngine


class Sink:
    """Collects deltas, and lets a test wait for some."""

    def __init__(self) -> None:
        self.deltas: dict[str, list[Delta]] = defaultdict(list)
        self._changed = threading.Condition()

    def __call__(self, deltas: Sequence[Delta]) -> None:
        with self._changed:
            for delta in deltas:
                self.deltas[delta.request_id].append(delta)
            self._changed.notify_all()

    def wait_for(self, request_id: str, count: int) -> list[Delta]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.deltas[request_id]) >= count, timeout=5)
            return list(self.deltas[request_id])


@pytest.fixture(name="sink")
def _sink() -> Sink:
    return Sink()


@pytest.fixture(name="engine")
def _engine(sink: Sink) -> Iterator[StubEngine]:
    engine = StubEngine(sink, step_s=0.002)
    engine.start()
    yield engine
    engine.close()


def ask(request_id: str, max_tokens: int | None) -> GenerationRequest:
    return GenerationRequest(request_id, "three word prompt", SamplingParams(max_tokens=max_tokens))


def test_each_request_gets_exactly_its_tokens_and_then_usage(engine: StubEngine, sink: Sink) -> None:
    for count in (1, 5, 9):
        engine.submit(ask(str(count), count))

    for count in (1, 5, 9):
        *before, last = sink.wait_for(str(count), count)
        assert len(before) == count - 1
        assert all(delta.finish_reason is None and delta.usage is None for delta in before)
        assert last.finish_reason is FinishReason.LENGTH
        assert last.usage is not None
        assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (3, count)
        assert "".join(delta.text for delta in [*before, last]) == " tok" * count

    stats = engine.stats()
    assert (stats.running, stats.finished, stats.generated_tokens) == (0, 3, 15)


def test_an_answer_begun_elsewhere_is_only_finished(engine: StubEngine, sink: Sink) -> None:
    engine.submit(replace(ask("a", 5), resume=(7, 7, 7)))

    deltas = sink.wait_for("a", 2)

    assert "".join(delta.text for delta in deltas) == " tok" * 2
    assert deltas[-1].usage is not None
    assert deltas[-1].usage.completion_tokens == 5


def test_abort_stops_a_stream_within_a_step(engine: StubEngine, sink: Sink) -> None:
    engine.submit(ask("a", None))
    sink.wait_for("a", 3)
    engine.abort(["a", "unknown"])
    time.sleep(0.01)
    count = len(sink.deltas["a"])
    time.sleep(0.03)

    assert len(sink.deltas["a"]) == count
    assert sink.deltas["a"][-1].finish_reason is None
    assert (engine.stats().running, engine.stats().aborted) == (0, 1)


def test_an_idle_engine_takes_no_steps(engine: StubEngine, sink: Sink) -> None:
    engine.submit(ask("a", 2))
    sink.wait_for("a", 2)
    steps = engine.stats().steps
    time.sleep(0.02)

    assert engine.stats().steps == steps


def test_an_id_in_use_is_refused(engine: StubEngine) -> None:
    engine.submit(ask("a", None))

    with pytest.raises(RequestError):
        engine.submit(ask("a", None))


def test_closing_ends_what_is_left(engine: StubEngine, sink: Sink) -> None:
    engine.check_health()
    engine.submit(ask("a", None))
    engine.close()
    engine.close()

    assert sink.deltas["a"][-1].finish_reason is FinishReason.ABORT
    with pytest.raises(EngineDeadError):
        engine.submit(ask("b", 1))
    with pytest.raises(EngineDeadError):
        engine.check_health()
