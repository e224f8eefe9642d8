from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.lanes.replica_choice import Candidate, place

candidates = st.lists(
    st.builds(
        Candidate,
        replica_id=st.uuids().map(str),
        outstanding=st.integers(0, 200),
        matched=st.floats(0, 1),
        memory_used=st.floats(0, 1),
    ),
    max_size=8,
    unique_by=lambda c: c.replica_id,
)


def test_no_candidate_gives_none() -> None:
    assert place([], "r", 2.0) is None


@given(candidates, st.text(max_size=10), st.floats(0, 100))
def test_the_choice_is_a_candidate_and_the_same_each_time(
    snapshot: list[Candidate], request_id: str, weight: float
) -> None:
    chosen = place(snapshot, request_id, weight)
    assert chosen == place(list(reversed(snapshot)), request_id, weight)
    assert (chosen is None) == (not snapshot)
    assert chosen is None or chosen in {c.replica_id for c in snapshot}


@pytest.mark.parametrize(("busier_by", "expected"), [(0, "warm"), (1, "warm"), (3, "cold")])
def test_a_warm_prefix_wins_until_its_queue_outweighs_it(busier_by: int, expected: str) -> None:
    snapshot = [Candidate("warm", 4 + busier_by, 1.0, 0.0), Candidate("cold", 4, 0.0, 0.0)]
    assert place(snapshot, "r", affinity_weight=2.0) == expected


@given(candidates.filter(bool), st.text(max_size=10))
def test_without_affinity_nobody_less_loaded_is_passed_over(snapshot: list[Candidate], request_id: str) -> None:
    chosen = place(snapshot, request_id, affinity_weight=0.0)
    loads = {c.replica_id: c.outstanding * (1 + c.memory_used) for c in snapshot}
    assert chosen is not None
    assert loads[chosen] == min(loads.values())


def test_equal_replicas_share_the_requests() -> None:
    snapshot = [Candidate(name, 0, 0.0, 0.0) for name in ("a", "b", "c", "d")]
    counts = dict.fromkeys("abcd", 0)
    for i in range(1000):
        chosen = place(snapshot, f"request-{i}", 2.0)
        assert chosen is not None
        counts[chosen] += 1
    assert min(counts.values()) > 180
