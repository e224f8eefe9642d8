"""Percentiles are numpy's; arrivals are a Poisson process."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from load_tests.generator.arrivals import poisson
from load_tests.generator.stats import Summary, percentile, rate_over_time

NUMBERS = st.floats(-1e6, 1e6)


@given(st.lists(NUMBERS, min_size=1), st.floats(0, 100))
def test_percentile_is_that_of_numpy(values: list[float], percent: float) -> None:
    expected = float(np.percentile(values, percent))

    assert percentile(sorted(values), percent) == pytest.approx(expected, rel=1e-9, abs=1e-6)


@given(st.lists(NUMBERS, min_size=1))
def test_summary_does_not_depend_on_order(values: list[float]) -> None:
    assert Summary.of(values) == Summary.of(reversed(values))
    assert Summary.of(values).max == max(values)


def test_nothing_has_no_percentile() -> None:
    assert math.isnan(percentile([], 50))
    assert math.isnan(Summary.of([]).p99)
    with pytest.raises(ValueError, match="between 0 and 100"):
        percentile([1.0], 101)


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 100))))
def test_rate_over_time_loses_nothing(events: list[tuple[float, float]]) -> None:
    rates = rate_over_time(events, 10, 0.5)

    assert len(rates) == 20
    assert sum(rates) * 0.5 == pytest.approx(sum(weight for _, weight in events))


def test_arrivals_come_at_the_rate_with_the_spread_of_a_poisson_process() -> None:
    times = list(poisson(50, 400, seed=1))
    gaps = [after - before for before, after in pairwise(times)]

    assert len(times) == pytest.approx(20_000, abs=5 * math.sqrt(20_000))
    assert np.std(gaps) == pytest.approx(np.mean(gaps), rel=0.05)  # exponential: both are 1 / rate
    counts = np.histogram(times, bins=400, range=(0, 400))[0]
    assert np.var(counts) == pytest.approx(np.mean(counts), rel=0.25)
    assert all(gap > 0 for gap in gaps)


def test_arrivals_repeat_for_a_seed_and_differ_between_seeds() -> None:
    assert list(poisson(10, 5, seed=3)) == list(poisson(10, 5, seed=3))
    assert list(poisson(10, 5, seed=3)) != list(poisson(10, 5, seed=4))
    with pytest.raises(ValueError, match="positive"):
        next(poisson(0, 1, seed=0))
