"""Fitting the forecaster: a planted rule is found, and chances come true."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.models.training.routing.head_report import area_under_curve, head_report
from deployments.models.training.routing.margin import MARGINS, difference, least_margin, lowered, with_margin
from deployments.models.training.routing.network import fit
from deployments.models.training.routing.openness import with_open_tier
from deployments.models.training.routing.sweep import Item
from router.tiers.quality_forecast import Features, Forecaster, features

TIERS = ("fast", "balanced", "frontier")
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


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=30))
def test_the_area_under_the_curve_is_the_chance_to_rank_a_pair_right(pairs: list[tuple[int, bool]]) -> None:
    good, bad = ([c for c, right in pairs if right is wanted] for wanted in (True, False))
    wins = [1.0 if g > b else 0.5 if g == b else 0.0 for g in good for b in bad]
    area = area_under_curve([c for c, _ in pairs], [right for _, right in pairs])
    assert area == pytest.approx(sum(wins) / len(wins)) if wins else math.isnan(area)
