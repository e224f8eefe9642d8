from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cluster.autoscaling.gpu_budget import Claim, share

claims = st.lists(
    st.builds(
        Claim,
        tier=st.uuids().map(str),
        wanted=st.integers(0, 20),
        least=st.integers(0, 3),
        now=st.integers(0, 20),
        need=st.floats(0, 30),
        weight=st.floats(0.1, 10),
        gpus=st.sampled_from([0.0, 0.5, 1.0, 2.0, 8.0]),
    ),
    max_size=5,
    unique_by=lambda claim: claim.tier,
)


def claim_of(
    tier: str, wanted: int, *, need: float = 0.0, weight: float = 1.0, gpus: float = 1.0, now: int = 0
) -> Claim:
    return Claim(tier, wanted, 1, now, need or wanted, weight, gpus)


@given(claims, st.floats(0, 60))
def test_no_tier_gets_more_than_it_wants_nor_all_more_than_there_is(asked: list[Claim], gpus: float) -> None:
    granted = share(asked, gpus)

    assert all(0 <= granted[claim.tier] <= claim.wanted for claim in asked)
    assert sum(granted[claim.tier] * claim.gpus for claim in asked) <= gpus + 1e-6


@given(claims, st.floats(0, 60))
def test_no_gpus_are_left_that_a_tier_still_wants(asked: list[Claim], gpus: float) -> None:
    granted = share(asked, gpus)

    left = gpus - sum(granted[claim.tier] * claim.gpus for claim in asked)
    assert all(granted[claim.tier] == claim.wanted or claim.gpus > left - 1e-6 for claim in asked)


def test_tiers_that_need_the_same_share_alike() -> None:
    assert share([claim_of("a", 8), claim_of("b", 8)], 8) == {"a": 4, "b": 4}


def test_a_weight_shifts_the_load() -> None:
    assert share([claim_of("a", 9, weight=2.0), claim_of("b", 9)], 9) == {"a": 6, "b": 3}


def test_the_tier_that_is_further_above_its_objectives_gets_more() -> None:
    assert share([claim_of("a", 12, need=12), claim_of("b", 6, need=6)], 9) == {"a": 6, "b": 3}


def test_minima_come_first() -> None:
    assert share([claim_of("a", 9, weight=100.0), claim_of("b", 9)], 3) == {"a": 2, "b": 1}


def test_a_replica_is_not_moved_for_a_small_difference() -> None:
    before = share([claim_of("a", 9, need=9.0, now=4), claim_of("b", 9, need=9.3, now=4)], 8)
    assert before == {"a": 4, "b": 4}
