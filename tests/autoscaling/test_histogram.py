from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.autoscaling.histogram import LATENCY_BOUNDS_S, LatencyHistogram, merged

latencies = st.lists(st.floats(0.001, 119), min_size=1, max_size=60)


@given(latencies, latencies)
def test_the_sum_of_histograms_is_that_of_all_latencies(a: list[float], b: list[float]) -> None:
    assert merged([LatencyHistogram.of(a), LatencyHistogram.of(b)]) == LatencyHistogram.of(a + b)


@given(latencies, st.floats(0.01, 1))
def test_a_quantile_lies_in_the_bucket_of_the_true_one(values: list[float], q: float) -> None:
    ordered = sorted(values)
    true = ordered[min(len(ordered) - 1, max(0, -int(-q * len(ordered) // 1) - 1))]
    high = next(bound for bound in LATENCY_BOUNDS_S if bound >= true)
    low = max([0.0, *(bound for bound in LATENCY_BOUNDS_S if bound < true)])

    assert low - 1e-9 <= LatencyHistogram.of(values).quantile(q) <= high + 1e-9


def test_percentiles_are_not_averaged() -> None:
    quick, slow = LatencyHistogram.of([0.01] * 990), LatencyHistogram.of([10.0] * 10)
    assert merged([quick, slow]).quantile(0.98) < 0.02  # type: ignore[union-attr]  # there are two histograms
    assert (quick.quantile(0.98) + slow.quantile(0.98)) / 2 > 4


def test_histograms_with_other_buckets_are_left_out() -> None:
    odd = LatencyHistogram((5, 5), (1.0,))
    assert merged([LatencyHistogram.of([0.1]), odd]) == LatencyHistogram.of([0.1])
    assert merged([]) is None


@pytest.mark.parametrize(
    ("counts", "bounds", "valid"),
    [
        ((1, 2), (1.0,), True),
        ((1,), (1.0,), False),
        ((1, -2), (1.0,), False),
        ((1, 2, 3), (2.0, 1.0), False),
        ((1, 2), (float("nan"),), False),
    ],
)
def test_a_histogram_that_cannot_be_is_seen(counts: tuple[int, ...], bounds: tuple[float, ...], valid: bool) -> None:
    assert LatencyHistogram(counts, bounds).valid is valid


def test_what_is_above_all_bounds_is_the_highest_bound() -> None:
    assert LatencyHistogram.of([1000.0]).quantile(0.99) == LATENCY_BOUNDS_S[-1]
    assert LatencyHistogram.of([]).quantile(0.99) == 0
