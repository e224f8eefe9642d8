"""Whatever raises inside one sequence ends that one alone, wherever it raises; the books balance afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import pytest

from engine import AsyncEngine, Delta, Engine, FinishReason, GenerationRequest, SamplingParams
from engine.scheduler.step_plan import Chunk
from tests.engine.conftest import MakeEngine

pytestmark = pytest.mark.usefixtures("clear_choices")

PARAMS = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
NAMES = "abc"


class Saboteur:
    """Raises when the sequence ``bad`` is met for the ``at``-th time."""

    def __init__(self, at: int) -> None:
        self.left = at

    def meet(self, name: str) -> None:
        if name == "bad":
            self.left -= 1
            if self.left <= 0:
                raise ArithmeticError("sabotage")


def in_the_runner(engine: Engine, saboteur: Saboteur) -> None:
    run = engine._runner.run

    def sabotaged(chunks: Iterable[Chunk]) -> Any:
        chunks = list(chunks)
        for chunk in chunks:
            saboteur.meet(chunk.sequence.request_id)
        return run(chunks)

    engine._runner.run = sabotaged  # type: ignore[method-assign]


def in_the_output(engine: Engine, saboteur: Saboteur) -> None:
    output = engine._output_processor._groups["bad"].first.output
    push = output.push

    def sabotaged(token: int, last: bool, complete: bool = False) -> Any:
        saboteur.meet("bad")
        return push(token, last, complete)

    output.push = sabotaged  # type: ignore[method-assign]


def in_admission(engine: Engine, saboteur: Saboteur) -> None:
    saboteur.left = 1
    known = engine._cache._known

    def sabotaged(sequence: Any) -> Any:
        saboteur.meet(sequence.request_id)
        return known(sequence)

    engine._cache._known = sabotaged  # type: ignore[method-assign]


def drain(engine: Engine) -> dict[str, list[Delta]]:
    deltas: dict[str, list[Delta]] = {}
    while engine.has_work:
        for delta in engine.step():
            deltas.setdefault(delta.request_id, []).append(delta)
    return deltas


def tokens(deltas: list[Delta]) -> tuple[int, ...]:
    return tuple(token for delta in deltas for token in delta.token_ids)


@pytest.mark.parametrize("tight", [False, True])
@pytest.mark.parametrize("at", [1, 3])
@pytest.mark.parametrize("where", [in_the_runner, in_the_output, in_admission])
def test_a_fault_in_one_sequence_ends_it_alone(
    make_engine: MakeEngine, where: Callable[[Engine, Saboteur], None], at: int, tight: bool
) -> None:
    prompts = {name: (ord(name[-1]), 5, 6, 7) * 5 for name in (*NAMES, "bad")}
    expected = make_engine().generate([prompts[name] for name in NAMES], PARAMS)
    engine = make_engine(kv_cache_tokens=96 if tight else 4096)
    for name, prompt in prompts.items():
        engine.add(GenerationRequest(name, prompt, PARAMS))
    where(engine, Saboteur(at))
    found = drain(engine)

    assert found["bad"][-1].finish_reason is FinishReason.ERROR
    assert found["bad"][-1].error == "The engine failed: ArithmeticError"
    assert [tokens(found[name]) for name in NAMES] == [one.token_ids for one in expected]
    assert (engine.stats().failed, engine.stats().blocks_used) == (1, 0)
    engine.repair()
    assert engine.metrics().repairs == 0


def test_a_fault_of_the_scheduler_ends_all_and_the_engine_goes_on(make_engine: MakeEngine) -> None:
    engine = make_engine(max_sequences=2)
    for name in NAMES:
        engine.add(GenerationRequest(name, (1, 2, 3), PARAMS))
    engine.step()

    def broken(sequences: object) -> NoReturn:
        raise ZeroDivisionError

    engine._cache.unready = broken  # type: ignore[method-assign]
    ended = engine.step()

    assert {delta.request_id: delta.finish_reason for delta in ended} == dict.fromkeys(NAMES, FinishReason.ERROR)
    assert not engine.has_work
    assert engine.generate([(1, 2, 3)], PARAMS)[0].finish_reason is FinishReason.LENGTH
    engine.repair()
    assert engine.metrics().repairs == 0


def test_books_that_do_not_balance_are_opened_anew_when_idle(make_engine: MakeEngine) -> None:
    engine = make_engine()
    subject = AsyncEngine(engine, lambda deltas: None)
    engine._cache.groups[0].pool.allocate(3)  # a leak
    engine.repair()

    assert engine.metrics().repairs == 1
    assert engine.stats().blocks_used == 0
    assert engine.generate([(1, 2, 3)], PARAMS)[0].finish_reason is FinishReason.LENGTH
    subject.close()
