"""The tiers' answers are asked for once, and the choices among them add up."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.models.training.curriculum.task import Task, Turn
from deployments.models.training.curriculum.task import ask as question
from deployments.models.training.routing.answers import MAX_TOKENS, Answer, ask, key
from deployments.models.training.routing.sweep import Item, best, oracle, outcome, sweep
from engine.api import Conversation, FinishReason, SamplingParams, Usage
from engine.completion import Completion

SIZES = (1, 4, 10)


class Parrot:
    """Answers with the first word of the question, and remembers how often it was asked."""

    def __init__(self, *, fails_after: int | None = None) -> None:
        self.asked: list[str] = []
        self._fails_after = fails_after

    def generate(self, prompts: Sequence[Conversation], params: SamplingParams) -> list[Completion]:
        assert (params.temperature, params.max_tokens) == (0.0, MAX_TOKENS)
        if self._fails_after is not None and len(self.asked) >= self._fails_after:
            raise KeyboardInterrupt
        texts = [prompt.messages[-1].content for prompt in prompts]
        self.asked += texts
        return [Completion(t.split()[0], (1,), FinishReason.STOP, Usage(len(t), 1, 0)) for t in texts]


class TestAsking:
    TASKS = tuple(Task("format", 1, question(f"yes {n}"), "yes" if n % 2 else "no") for n in range(300))

    def test_answers_are_judged_and_counted_in_order(self, tmp_path: Path) -> None:
        answers = ask(Parrot(), self.TASKS[:3], tmp_path / "a.jsonl", "fast")
        assert answers == [Answer(False, 5, 1), Answer(True, 5, 1), Answer(False, 5, 1)]
        assert answers[0].tokens == 6

    def test_what_is_known_is_not_asked_again(self, tmp_path: Path) -> None:
        file = tmp_path / "deep" / "a.jsonl"
        first = ask(Parrot(), self.TASKS[:200], file, "fast")
        parrot = Parrot()
        assert ask(parrot, self.TASKS, file, "fast")[:200] == first
        assert len(parrot.asked) == 100

    def test_an_interrupted_run_goes_on_even_from_half_a_line(self, tmp_path: Path) -> None:
        file = tmp_path / "a.jsonl"
        with pytest.raises(KeyboardInterrupt):
            ask(Parrot(fails_after=1), self.TASKS, file, "fast")
        kept = len(file.read_text().splitlines())
        file.write_text(file.read_text()[:-10])
        parrot = Parrot()
        ask(parrot, self.TASKS, file, "fast")
        assert 0 < kept < 300
        assert len(parrot.asked) == 300 - kept + 1
        assert len(file.read_text().splitlines()) == 300

    def test_a_failure_of_the_engine_is_no_answer(self, tmp_path: Path) -> None:
        class Broken(Parrot):
            def generate(self, prompts: Sequence[Conversation], params: SamplingParams) -> list[Completion]:
                return [Completion("", (), FinishReason.ERROR, Usage(1, 0, 0), "it broke") for _ in prompts]

        with pytest.raises(RuntimeError, match="it broke"):
            ask(Broken(), self.TASKS, tmp_path / "a.jsonl", "fast")
        assert (tmp_path / "a.jsonl").read_text() == ""

    def test_a_task_is_known_by_its_turns_and_its_answer(self) -> None:
        turns = (Turn("user", "a"), Turn("assistant", "b"), Turn("user", "c"))
        tasks = [Task("format", 1, turns, "d"), Task("format", 1, turns, "e"), Task("format", 1, turns[2:], "d")]
        assert len({key(task) for task in tasks}) == 3
        assert key(tasks[0]) == key(Task("tables", 2, turns, "d", "working"))


items = st.lists(
    st.builds(
        Item,
        st.tuples(st.booleans(), st.booleans(), st.booleans()),
        st.integers(1, 100).map(lambda tokens: (tokens,) * 3),
    ),
    min_size=1,
    max_size=20,
)


class TestTheSweep:
    @given(items, st.randoms(use_true_random=False))
    def test_more_tolerance_never_costs_more(self, tasks: list[Item], draw: random.Random) -> None:
        expected = [[draw.random() for _ in range(3)] for _ in tasks]
        spent = [setting.point.compute for setting in sweep(tasks, expected, SIZES, steps=20)]
        assert all(later <= earlier for earlier, later in pairwise(spent))

    @given(items)
    def test_its_ends_are_the_best_expected_and_the_cheapest(self, tasks: list[Item]) -> None:
        settings = sweep(tasks, [[0.1, 0.2, 0.9]] * len(tasks), SIZES)
        assert settings[0].point == outcome(tasks, [2] * len(tasks), SIZES)
        assert settings[0].point.compute == 1
        assert settings[-1].point == outcome(tasks, [0] * len(tasks), SIZES)
        assert settings[-1].point.compute == pytest.approx(0.1)

    @given(items, st.randoms(use_true_random=False))
    def test_nothing_is_more_accurate_than_the_oracle(self, tasks: list[Item], draw: random.Random) -> None:
        bound = oracle(tasks, SIZES).accuracy
        expected = [[draw.random() for _ in range(3)] for _ in tasks]
        assert all(setting.point.accuracy <= bound for setting in sweep(tasks, expected, SIZES, steps=10))

    def test_the_best_is_the_cheapest_that_is_good_enough(self) -> None:
        tasks = [Item((True, True, True), (10, 10, 10)), Item((False, False, True), (10, 10, 10))]
        settings = sweep(tasks, [[0.9, 0.9, 0.95], [0.2, 0.3, 0.9]], SIZES)
        chosen = best(settings, 1.0)
        assert chosen is not None
        assert chosen.point == outcome(tasks, [0, 2], SIZES)
        assert best(settings, 1.01) is None
