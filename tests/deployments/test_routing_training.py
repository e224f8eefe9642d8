"""Fitting the forecaster: a planted rule is found, chances come true, answers are asked once, choices add up."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.models.training.curriculum.task import Task, Turn
from deployments.models.training.curriculum.task import ask as question
from deployments.models.training.routing.answers import MAX_TOKENS, Answer, ask, key
from deployments.models.training.routing.everyday_questions import NOUNS, everyday_questions
from deployments.models.training.routing.heads import Fit, area_under_curve, fit, refit
from deployments.models.training.routing.open_prompts import OPEN
from deployments.models.training.routing.sweep import Item, best, oracle, outcome, sweep
from engine.api import Conversation, FinishReason, SamplingParams, Usage
from engine.completion import Completion
from load_tests.quality.open_questions.question import read_open_questions
from load_tests.quality.options import OPEN_QUESTIONS
from router.tiers.quality_forecast import Features, Forecaster, features

MODELS = Path(__file__).parents[2] / "deployments" / "models"
TIERS = ("fast", "balanced", "frontier")
SIZES = (1, 4, 10)
KINDS = ("add {} and {}", "multiply {} by {}")


def planted(count: int, seed: int) -> tuple[list[Features], list[list[bool]]]:
    """Tasks where the kind and the length of the numbers decide how often each tier is right."""
    draw = random.Random(seed)
    seen, right = [], []
    for _ in range(count):
        kind, digits = draw.randrange(2), draw.randint(1, 4)
        numbers = [draw.randint(10 ** (digits - 1), 10**digits - 1) for _ in range(2)]
        seen.append(features(KINDS[kind].format(*numbers)))
        right.append([draw.random() < chance(tier, kind, digits) for tier in range(3)])
    return seen, right


def chance(tier: int, kind: int, digits: int) -> float:
    return 1 / (1 + math.exp(-(4 + 1.5 * tier - 1.2 * digits - 2 * kind)))


@pytest.fixture(scope="module")
def fitted() -> Fit:
    return fit(*planted(1500, seed=1), TIERS)


class TestTheHeads:
    def test_they_find_the_planted_rule(self, fitted: Fit) -> None:
        for kind in range(2):
            for digits in range(1, 5):
                seen = features(KINDS[kind].format("7" * digits, "9" * digits))
                expected = fitted.forecaster.expect(seen)
                assert expected == pytest.approx([chance(tier, kind, digits) for tier in range(3)], abs=0.12)

    def test_their_chances_come_true(self, fitted: Fit) -> None:
        seen, right = planted(2000, seed=2)
        expected = [fitted.forecaster.expect(each) for each in seen]
        for tier in range(3):
            by_chance = sorted((chances[tier], row[tier]) for chances, row in zip(expected, right, strict=True))
            for start in range(0, 2000, 500):
                part = by_chance[start : start + 1000]
                assert sum(c for c, _ in part) / 500 == pytest.approx(sum(r for _, r in part) / 500, abs=0.08)

    def test_the_report_is_of_tasks_not_fitted_to_and_better_than_the_base_rate(self, fitted: Fit) -> None:
        assert len(set(fitted.reported)) == 300
        for report in fitted.reports:
            assert report.log_loss < report.base_loss
            assert report.auc > 0.7
            assert report.expected == pytest.approx(report.right, abs=0.06)

    def test_a_tier_that_is_asked_less_is_fitted_to_what_it_was_asked(self, fitted: Fit) -> None:
        seen, right = planted(1500, seed=1)
        partly: list[list[bool | None]] = [[*row[:2], row[2] if n < 600 else None] for n, row in enumerate(right)]

        heads = fit(seen, partly, TIERS)

        assert [report.right for report in heads.reports[:2]] == [report.right for report in fitted.reports[:2]]
        for asked_less, asked_all in zip(
            heads.forecaster.words.values(), fitted.forecaster.words.values(), strict=True
        ):
            assert asked_less[:2] == pytest.approx(asked_all[:2], abs=0.01)
        for digits in range(1, 5):
            chances = heads.forecaster.expect(features(KINDS[0].format("7" * digits, "9" * digits)))
            assert chances[2] == pytest.approx(chance(2, 0, digits), abs=0.15)

    def test_the_file_forecasts_as_the_fit_does(self, fitted: Fit) -> None:
        text = fitted.forecaster.to_json()
        read = Forecaster.from_json(text)
        for seen in planted(50, seed=3)[0]:
            assert read.expect(seen) == pytest.approx(fitted.forecaster.expect(seen), abs=0.005)
        assert len(text) < 500_000

    def test_the_same_data_gives_the_same_file(self) -> None:
        one, other = (fit(*planted(200, seed=4), TIERS).forecaster.to_json() for _ in range(2))
        assert one == other

    def test_a_tier_that_is_always_right_is_nearly_certain_and_one_that_never_is_hopeless(self) -> None:
        seen, _ = planted(300, seed=5)
        heads = fit(seen, [[True, False, True] for _ in seen], TIERS)
        always, never, _ = heads.forecaster.expect(seen[0])
        assert 0.97 < always < 1
        assert 0 < never < 0.03
        assert all(math.isnan(report.auc) for report in heads.reports)

    def test_what_cannot_be_foretold_is_forecast_by_its_mean(self) -> None:
        draw = random.Random(6)
        seen, _ = planted(600, seed=6)
        heads = fit(seen, [[draw.random() < 0.3] for _ in seen], TIERS[:1])
        assert all(heads.forecaster.expect(each)[0] == pytest.approx(0.3, abs=0.1) for each in seen[:50])

    def test_too_few_tasks_are_refused(self) -> None:
        with pytest.raises(ValueError, match="too few"):
            fit(*planted(20, seed=7), TIERS)


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=30))
def test_the_area_under_the_curve_is_the_chance_to_rank_a_pair_right(pairs: list[tuple[int, bool]]) -> None:
    good, bad = ([c for c, right in pairs if right is wanted] for wanted in (True, False))
    wins = [1.0 if g > b else 0.5 if g == b else 0.0 for g in good for b in bad]
    area = area_under_curve([c for c, _ in pairs], [right for _, right in pairs])
    assert area == pytest.approx(sum(wins) / len(wins)) if wins else math.isnan(area)


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


class TestTheRefit:
    def test_open_requests_get_new_chances_and_tasks_keep_theirs(self, fitted: Fit) -> None:
        tasks = planted(600, seed=7)[0]
        opened = [features(f"Why do people like the colour of the {noun}?") for noun in ["sea", "sky", "sun"] * 40]
        kept = [fitted.forecaster.expect(each) for each in tasks]
        sure = (0.0, 0.0, 1.0)

        new = refit(fitted.forecaster, [*tasks, *opened], [*kept, *[sure] * len(opened)])

        for each, before in zip(tasks, kept, strict=True):
            assert new.expect(each) == pytest.approx(before, abs=0.05)
        assert new.expect(features("Why do people like the taste of the soup?")) == pytest.approx(sure, abs=0.1)
        assert (new.tiers, new.known) == (fitted.forecaster.tiers, fitted.forecaster.known)


class TestEverydayQuestions:
    def test_they_are_different_the_same_for_a_seed_and_open(self) -> None:
        one, other = everyday_questions(300, 1), everyday_questions(300, 1)

        assert one == other != everyday_questions(300, 2)
        assert len({task.turns[-1].content for task in one}) == 300
        assert {task.family for task in one} == {OPEN}

    def test_they_are_about_nothing_that_auto_is_judged_by(self) -> None:
        asked = " ".join(item.messages[-1].content.lower() for item in read_open_questions(OPEN_QUESTIONS).items)

        assert not set(NOUNS.split()) & set(re.findall(r"[a-z]+", asked))

    def test_more_than_there_are_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="there are"):
            everyday_questions(1_000_000, 1)
