"""A device that fails ends the engine and blames no request; an operation that fails ends one request alone."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import pytest
import torch

from engine import AsyncEngine, Delta, Engine, EngineDeadError, FinishReason, GenerationRequest, SamplingParams
from engine.device_health import check_device
from tests.engine.conftest import MakeEngine

WAIT_S = 30.0
PARAMS = SamplingParams(temperature=0, max_tokens=50, ignore_eos=True)


def break_card(engine: Engine, operation: str) -> None:
    """Has every call of ``operation`` fail, and the card with it."""

    def failing(*_: object) -> NoReturn:
        raise RuntimeError("an illegal memory access was encountered")

    def lost() -> NoReturn:
        raise EngineDeadError("The GPU cannot be used any more.")

    setattr(engine._runner, operation, failing)
    engine._runner.check_health = lost  # type: ignore[method-assign]


@pytest.fixture
def served(make_engine: MakeEngine) -> Iterator[Callable[[str, SamplingParams], list[Delta]]]:
    """Serves two requests until the card fails in ``operation``, after the first one's first token. Returns the last
    deltas of both."""
    made: list[AsyncEngine] = []

    def serve(operation: str, params: SamplingParams) -> list[Delta]:
        engine = make_engine()
        told: queue.Queue[Delta] = queue.Queue()
        steps: list[int] = []

        def take(deltas: Any) -> None:
            if not steps:
                break_card(engine, operation)
            steps.append(len(deltas))
            for delta in deltas:
                told.put(delta)

        subject = AsyncEngine(engine, take)
        made.append(subject)
        for name in "ab":
            subject.submit(GenerationRequest(name, (1, 2, 3), params))
        subject.start()
        ends: list[Delta] = []
        while len(ends) < 2:
            delta = told.get(timeout=WAIT_S)
            ends += [delta] if delta.last else []
        with pytest.raises(EngineDeadError, match="GPU"):
            subject.check_health()
        with pytest.raises(EngineDeadError):
            subject.submit(GenerationRequest("c", (1, 2, 3), params))
        return ends

    yield serve
    for each in made:
        each.close()


def test_no_request_is_blamed_for_a_card_that_fails(
    served: Callable[[str, SamplingParams], list[Delta]],
) -> None:
    ends = served("run", PARAMS)

    assert [delta.finish_reason for delta in ends] == [FinishReason.ERROR] * 2
    assert [delta.usage for delta in ends] == [None, None], "counts would say that the requests are at fault"


def test_a_card_that_fails_while_blocks_are_copied_ends_the_engine_too(
    served: Callable[[str, SamplingParams], list[Delta]],
) -> None:
    ends = served("copy", SamplingParams(temperature=0, n=3, max_tokens=50, ignore_eos=True))

    assert [(delta.finish_reason, delta.usage) for delta in ends] == [(FinishReason.ERROR, None)] * 2


def test_an_operation_that_fails_while_the_card_works_ends_its_request_alone(make_engine: MakeEngine) -> None:
    engine, checked = make_engine(), []
    run = engine._runner.run

    def failing(chunks: Any) -> Any:
        chunks = list(chunks)
        if any(chunk.sequence.request_id == "bad" for chunk in chunks):
            raise torch.OutOfMemoryError("out of memory")
        return run(chunks)

    engine._runner.run = failing  # type: ignore[method-assign]
    engine._runner.check_health = lambda: checked.append(1)  # type: ignore[method-assign]
    for name in ("good", "bad"):
        engine.add(GenerationRequest(name, (1, 2, 3), PARAMS))
    ends: dict[str, Delta] = {}
    while engine.has_work:
        ends |= {delta.request_id: delta for delta in engine.step()}

    assert (ends["good"].finish_reason, ends["bad"].finish_reason) == (FinishReason.LENGTH, FinishReason.ERROR)
    assert ends["bad"].usage is not None
    assert len(checked) == 2, "once for the batch, once for the chunk alone"


def test_a_card_is_lost_when_what_it_computes_cannot_be_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def synchronize(device: torch.device) -> NoReturn:
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)

    check_device(torch.device("cpu"))
    with pytest.raises(EngineDeadError, match="RuntimeError"):
        check_device(torch.device("cuda"))
