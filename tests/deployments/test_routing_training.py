"""Fitting the forecaster: a planted rule is found, chances come true, answers are asked once, choices add up."""

from __future__ import annotations

import gzip
import json
import math
import random
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.models.training.curriculum import draw_tasks, words
from deployments.models.training.curriculum.task import FAMILIES, Task, Turn
from deployments.models.training.curriculum.task import ask as question
from deployments.models.training.routing.answers import MAX_TOKENS, Answer, ask, key
from deployments.models.training.routing.everyday_questions import NOUNS, everyday_questions
from deployments.models.training.routing.head_report import area_under_curve, head_report
from deployments.models.training.routing.margin import MARGINS, difference, least_margin, lowered, with_margin
from deployments.models.training.routing.network import fit
from deployments.models.training.routing.open_prompts import OPEN
from deployments.models.training.routing.openness import with_open_tier
from deployments.models.training.routing.other_values import FITTED_VALUES, JUDGED_VALUES, with_other_values
from deployments.models.training.routing.requests import (
    INSTRUCTIONS,
    QUESTIONS,
    REQUEST_COUNT,
    REQUESTS_BY_INTENT,
    draw_requests,
)
from deployments.models.training.routing.reworded import FITTED, JUDGED, Wordings, reworded
from deployments.models.training.routing.sweep import Item, best, oracle, outcome, sweep
from engine.api import Conversation, FinishReason, SamplingParams, Usage
from engine.completion import Completion
from load_tests.quality.item import read_held_out
from load_tests.quality.open_questions.question import read_open_questions
from load_tests.quality.options import HELD_OUT, OPEN_QUESTIONS
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
def fitted() -> Forecaster:
    return fit(*planted(1500, seed=1), TIERS)


class TestTheFit:
    def test_it_finds_the_planted_rule(self, fitted: Forecaster) -> None:
        for kind in range(2):
            for digits in range(1, 5):
                expected = fitted.expect(features(KINDS[kind].format("7" * digits, "9" * digits)))
                assert expected == pytest.approx([chance(tier, kind, digits) for tier in range(3)], abs=0.15)

    def test_it_finds_a_rule_that_no_sum_of_words_and_signs_can_express(self) -> None:
        draw = random.Random(8)
        asked = [(draw.randrange(2), draw.randint(1, 2)) for _ in range(1500)]
        seen = [features(KINDS[kind].format("7" * digits, "9" * digits)) for kind, digits in asked]

        found = fit(seen, [[kind == digits - 1] for kind, digits in asked], TIERS[:1])

        for (kind, digits), each in list(zip(asked, seen, strict=True))[:50]:
            assert found.expect(each)[0] == pytest.approx(float(kind == digits - 1), abs=0.1)

    def test_its_chances_come_true(self, fitted: Forecaster) -> None:
        seen, right = planted(2000, seed=2)
        expected = [fitted.expect(each) for each in seen]
        for tier in range(3):
            by_chance = sorted((chances[tier], row[tier]) for chances, row in zip(expected, right, strict=True))
            for start in range(0, 2000, 500):
                part = by_chance[start : start + 500]
                assert sum(c for c, _ in part) / 500 == pytest.approx(sum(r for _, r in part) / 500, abs=0.12)

    def test_it_foretells_new_tasks_better_than_the_base_rate(self, fitted: Forecaster) -> None:
        seen, right = planted(500, seed=3)
        expected = [fitted.expect(each) for each in seen]
        for place, tier in enumerate(TIERS):
            report = head_report(tier, [each[place] for each in expected], [row[place] for row in right])
            assert report.log_loss < report.base_loss
            assert report.auc > 0.7
            assert report.expected == pytest.approx(report.right, abs=0.06)

    def test_a_tier_that_is_asked_less_is_fitted_to_what_it_was_asked(self) -> None:
        seen, right = planted(1500, seed=1)
        partly: list[list[bool | None]] = [[*row[:2], row[2] if n < 600 else None] for n, row in enumerate(right)]

        found = fit(seen, partly, TIERS)

        for digits in range(1, 5):
            chances = found.expect(features(KINDS[0].format("7" * digits, "9" * digits)))
            assert chances == pytest.approx([chance(tier, 0, digits) for tier in range(3)], abs=0.2)

    def test_the_file_forecasts_as_the_fit_does(self, fitted: Forecaster) -> None:
        text = fitted.to_json()
        read = Forecaster.from_json(text)
        for seen in planted(50, seed=3)[0]:
            assert read.expect(seen) == pytest.approx(fitted.expect(seen), abs=0.005)
        assert len(text) < 500_000

    def test_the_same_data_gives_the_same_file(self) -> None:
        one, other = (fit(*planted(200, seed=4), TIERS).to_json() for _ in range(2))
        assert one == other

    def test_a_tier_that_is_always_right_is_nearly_certain_and_one_that_never_is_hopeless(self) -> None:
        seen, _ = planted(300, seed=5)
        always, never, _ = fit(seen, [[True, False, True] for _ in seen], TIERS).expect(seen[0])
        assert 0.97 < always < 1
        assert 0 < never < 0.03

    def test_too_few_tasks_are_refused(self) -> None:
        with pytest.raises(ValueError, match="too few"):
            fit(*planted(20, seed=7), TIERS)


class TestTheMargin:
    ITEMS = tuple(Item((n % 10 > 0, True), (1, 1)) for n in range(1000))
    """The cheaper tier is wrong once in ten; its chance is too high."""
    FLATTERED = ((0.99, 0.985),) * 1000

    def test_the_difference_comes_with_its_error_and_the_share_of_other_tiers(self) -> None:
        found = difference(self.ITEMS, self.FLATTERED, best=1, tolerance=0.0, margin=0.0)

        assert found.mean == pytest.approx(-0.1)
        assert found.error == pytest.approx(math.sqrt(0.09 / 1000))
        assert found.elsewhere == 1
        assert found.low == pytest.approx(found.mean - found.error)

    def test_a_tier_that_is_forecast_too_good_is_left_out_by_a_margin(self) -> None:
        margin = least_margin(self.ITEMS, [(0.985, 0.99)] * 1000, best=1, tolerance=0.02, loss=0.001)

        assert margin > 0
        assert difference(self.ITEMS, [(0.985, 0.99)] * 1000, 1, 0.02, margin).mean == 0

    def test_none_is_needed_where_the_cheaper_tier_is_as_good(self) -> None:
        items = [Item((True, True), (1, 1))] * 100

        assert least_margin(items, [(0.9, 0.95)] * 100, best=1, tolerance=0.05, loss=0.0) == 0

    @given(st.lists(st.floats(0.001, 0.999), min_size=3, max_size=3), st.floats(0, 4))
    def test_it_lowers_the_chances_of_the_cheaper_tiers_alone(self, expected: list[float], margin: float) -> None:
        one, other, best = lowered(expected, 2, margin)

        assert (one, other, best) <= (expected[0] + 1e-9, expected[1] + 1e-9, expected[2])
        assert best == expected[2]

    def test_the_forecaster_expects_the_lowered_chances(self, fitted: Forecaster) -> None:
        seen = planted(1, seed=9)[0][0]

        told = with_margin(fitted, 2, 1.5).expect(seen)

        assert told == pytest.approx(lowered(fitted.expect(seen), 2, 1.5))

    def test_the_largest_is_taken_where_none_is_enough(self) -> None:
        assert least_margin(self.ITEMS, self.FLATTERED, best=1, tolerance=1.0, loss=0.0) == MARGINS[-1]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As many questions, instructions and requests as are drawn, in files like the public ones."""
    folder = tmp_path_factory.mktemp("data")
    files = {
        **{
            name: [{"text_a": f"Why is the sea number {n} blue?"} for n in range(count)]
            for name, count in QUESTIONS.items()
        },
        **{
            name: [{"instruction": f"Write about {n} ships"} for n in range(count)]
            for name, count in INSTRUCTIONS.items()
        },
        REQUESTS_BY_INTENT: [
            *({"intent": "recipe", "text": f"what can i cook with {n} eggs"} for n in range(REQUEST_COUNT)),
            {"intent": "goodbye", "text": "see you around"},
            {"intent": "calculator", "text": "what is two plus two"},
        ],
    }
    for name, rows in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        with gzip.open(folder / name, "wt", encoding="utf-8") as lines:
            lines.writelines(json.dumps(row) + "\n" for row in rows)
    return folder


class TestTheRequests:
    def test_what_is_judged_by_is_not_fitted_to(self, data: Path) -> None:
        requests = draw_requests(400, 90, 200, data, seed=3)

        fitted = {key(task) for task in requests.fitted}
        assert len(fitted) > 300
        for judged in requests.judged.values():
            assert len(judged) > 5
            assert not fitted & {key(task) for task in judged}
            assert {task.family for task in judged} <= set(FAMILIES)

    def test_small_talk_is_not_open(self, data: Path) -> None:
        requests = draw_requests(10, 10, 10, data, seed=3)

        assert [task.turns[-1].content.lower().rstrip("!.") for task in requests.small_talk] == ["see you around"]
        assert not [task for task in requests.opened if "two plus two" in task.turns[-1].content.lower()]
        assert len(requests.opened) > 10_000

    def test_they_are_the_same_for_a_seed(self, data: Path) -> None:
        one, other, third = (draw_requests(50, 30, 30, data, seed) for seed in (1, 1, 2))
        assert one == other != third

    def test_no_single_question_is_in_the_held_out_set(self, data: Path) -> None:
        held_out = {item.messages[0].content for item in read_held_out(HELD_OUT).items if len(item.messages) == 1}
        requests = draw_requests(2000, 900, 2000, data, 0)

        asked = [*requests.fitted, *(task for part in requests.judged.values() for task in part)]
        assert not [task for task in asked if len(task.turns) == 1 and task.turns[0].content in held_out]


class TestOpenRequests:
    def test_they_go_to_their_tier_and_tasks_keep_theirs(self, fitted: Forecaster) -> None:
        tasks = planted(600, seed=7)[0]
        opened = [features(f"Why do people like the colour of the {noun}?") for noun in ["sea", "sky", "sun"] * 40]

        whole = with_open_tier(fitted, "general", [*tasks, *opened], [False] * len(tasks) + [True] * len(opened))

        assert whole.tiers == (*TIERS, "general")
        for each in tasks[:50]:
            assert whole.expect(each)[:3] == pytest.approx(fitted.expect(each))
            assert whole.expect(each)[3] < 0.05
        assert whole.expect(features("Why do people like the taste of the soup?"))[3] > 0.9

    def test_words_that_occur_once_are_told_by_their_characters(self) -> None:
        """No word of a request occurs in another one, so the words say nothing."""
        letters = "abcdefghijklmnopqrst"
        ends = [one + other for one in letters for other in letters]
        tasks, opened = ([features(f"{stem}{end}") for end in ends] for stem in ("alphabet", "mountain"))
        untaught = Forecaster(TIERS, (0.0,) * len(TIERS), {}, {})

        whole = with_open_tier(untaught, "general", [*tasks, *opened], [False] * len(tasks) + [True] * len(opened))

        assert whole.expect(features("alphabtzz"))[-1] < 0.1
        assert whole.expect(features("mountianzz"))[-1] > 0.9


class TestOtherNames:
    def test_names_change_in_the_question_and_in_the_answer(self) -> None:
        text = "The home of Ada is Rome. Ada can be reached at ada.adams@home.org. In which city does Ada live?"
        task = Task("extraction", 1, question(text), "Rome")

        (other,) = with_other_values([task], JUDGED_VALUES, 0)

        assert other.answer in JUDGED_VALUES[words.CITIES]
        assert f"is {other.answer}." in other.turns[0].content
        assert not re.search(r"\bada\b|rome", other.turns[0].content, re.IGNORECASE)

    @pytest.mark.parametrize(
        ("family", "text"),
        [
            ("extraction", "Sort by letter: Ada, Bruno"),
            ("transformation", "Reverse: Ada"),
            ("extraction", "Which one?"),
        ],
    )
    def test_what_depends_on_spelling_and_what_has_no_names_is_left_out(self, family: str, text: str) -> None:
        assert with_other_values([Task(family, 1, question(text), "7")], FITTED_VALUES, 0) == []

    def test_no_name_is_fitted_to_and_judged_by_or_in_the_curriculum(self) -> None:
        fitted, judged = (
            {word for new in values.values() for word in new} for values in (FITTED_VALUES, JUDGED_VALUES)
        )
        taught = {word for old in FITTED_VALUES for word in old}
        assert not fitted & judged
        assert not (fitted | judged) & taught


class TestOtherWords:
    @pytest.mark.parametrize("wordings", [FITTED, JUDGED])
    def test_the_question_changes_and_the_right_answer_does_not(self, wordings: Wordings) -> None:
        tasks = [task for task in draw_tasks(300, "words") if task.family in FAMILIES]

        others = reworded(tasks, wordings, 0)

        for task, other in zip(tasks, others, strict=True):
            assert other.turns[:-1] == task.turns[:-1]
            assert other.turns[-1].content != task.turns[-1].content
            assert (other.answer, other.family) == (task.answer, task.family)
        assert reworded(tasks, wordings, 0) == others != reworded(tasks, wordings, 1)

    def test_drills_are_left_out(self) -> None:
        tasks = list(draw_tasks(300, "words"))

        assert {task.family for task in reworded(tasks, FITTED, 0)} == set(FAMILIES)

    def test_no_wording_is_fitted_to_and_judged_by(self) -> None:
        assert not phrases(FITTED) & phrases(JUDGED)

    @pytest.mark.parametrize("wordings", [FITTED, JUDGED])
    def test_no_wording_is_in_the_held_out_set(self, wordings: Wordings) -> None:
        asked = "\n".join(item.messages[-1].content.lower() for item in read_held_out(HELD_OUT).items)

        assert not [phrase for phrase in phrases(wordings) if re.search(rf"\b{re.escape(phrase)}\b", asked)]


def phrases(wordings: Wordings) -> set[str]:
    instead = [phrase for others in wordings.instead.values() for phrase in others]
    every = [*wordings.before, *wordings.behind, *wordings.behind_greeting, *instead]
    return {phrase.strip(" .,:!?").lower() for phrase in every}


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
