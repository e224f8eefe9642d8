"""The choice of a replica: by predicted TTFT, and by sequences as long as nothing is measured."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.lanes.placed_requests import PlacedRequests
from cluster.lanes.replica_choice import NEAR, Candidate, place
from engine.api import Priority
from router.latency_prediction import predict_ttft
from router.ports.replica_load import ReplicaLoad
from tests.router.replica_loads import IDLE, loads

PROMPT = 1_000

candidates = st.lists(
    st.builds(
        Candidate,
        replica_id=st.uuids().map(str),
        load=loads | st.just(ReplicaLoad()),
        outstanding=st.integers(0, 200),
        matched_tokens=st.integers(0, 2_000),
    ),
    max_size=8,
    unique_by=lambda c: c.replica_id,
)


def busy(tokens: int) -> ReplicaLoad:
    return replace(IDLE, queued_short=(0, tokens, 0))


def chosen_of(snapshot: list[Candidate], request_id: str = "r", prompt: int = PROMPT, weight: float = 2.0) -> str:
    chosen = place(snapshot, request_id, prompt, affinity_weight=weight)
    assert chosen is not None
    return chosen.candidate.replica_id


def test_no_candidate_gives_none() -> None:
    assert place([], "r", PROMPT) is None


@given(candidates, st.text(max_size=10), st.integers(0, 10_000), st.sampled_from(Priority), st.floats(0, 100))
def test_the_choice_is_a_candidate_and_the_same_each_time(
    snapshot: list[Candidate], request_id: str, prompt: int, priority: Priority, weight: float
) -> None:
    chosen = place(snapshot, request_id, prompt, priority, weight)
    assert chosen == place(list(reversed(snapshot)), request_id, prompt, priority, weight)
    assert (chosen is None) == (not snapshot)
    if chosen is not None:
        candidate = chosen.candidate
        assert candidate in snapshot
        assert chosen.ttft_s == predict_ttft(candidate.load, prompt, candidate.matched_tokens, priority)


def test_the_limits_of_a_new_replica_do_not_depend_on_which_peer_is_listed_first() -> None:
    slow = ReplicaLoad(step_s=1.0, prefill_chunk=1, output_tokens=1.0)
    late = ReplicaLoad(prompt_token_s=1.0, overhead_s=1.0, output_tokens=1.0)
    snapshot = [Candidate(str(number), load, 0) for number, load in enumerate((slow, ReplicaLoad(), late))]
    chosen, of_reversed = (place(listed, "r", 2, Priority.INTERACTIVE, 0.0) for listed in (snapshot, snapshot[::-1]))
    assert chosen == of_reversed


@given(st.lists(loads.filter(lambda load: load.measured), min_size=1, max_size=8), st.integers(1, 10_000), st.uuids())
def test_without_weight_the_least_predicted_ttft_is_taken(
    reported: list[ReplicaLoad], prompt: int, request_id: object
) -> None:
    answered = (replace(load, blocks_used=0, output_tokens=1 + load.output_tokens) for load in reported)
    loads_by_id = {str(number): load for number, load in enumerate(answered)}
    snapshot = [Candidate(name, load, 0) for name, load in loads_by_id.items()]
    chosen = chosen_of(snapshot, str(request_id), prompt, weight=0.0)
    ttfts = {name: predict_ttft(load, prompt) for name, load in loads_by_id.items()}
    assert ttfts[chosen] <= NEAR * min(ttfts.values()) * (1 + 1e-9)


@pytest.mark.parametrize(("queued", "expected"), [(0, "warm"), (800, "warm"), (4_000, "cold")])
def test_a_warm_prefix_wins_until_its_queue_outweighs_it(queued: int, expected: str) -> None:
    snapshot = [Candidate("warm", busy(queued), 0, PROMPT), Candidate("cold", IDLE, 0, 0)]
    assert chosen_of(snapshot) == expected


def test_a_replica_whose_cache_is_nearly_full_counts_as_busier() -> None:
    full = replace(IDLE, running=1, decoding=1, blocks_used=90, blocks_total=100)
    snapshot = [Candidate("full", full, 1), Candidate("free", replace(full, blocks_used=10), 1)]
    assert {chosen_of(snapshot, f"request-{i}", 10) for i in range(50)} == {"free"}


def test_equal_replicas_share_the_requests() -> None:
    for load in (IDLE, ReplicaLoad()):
        snapshot = [Candidate(name, load, 0) for name in ("a", "b", "c", "d")]
        counts = Counter(chosen_of(snapshot, f"request-{i}") for i in range(1000))
        assert min(counts[name] for name in "abcd") > 180


def test_replicas_that_have_measured_nothing_are_compared_by_their_sequences() -> None:
    snapshot = [Candidate("busy", ReplicaLoad(), 3), Candidate("free", ReplicaLoad(), 0)]
    assert chosen_of(snapshot) == "free"
    warm = [Candidate("warm", ReplicaLoad(), 1, PROMPT), Candidate("cold", ReplicaLoad(), 0)]
    assert chosen_of(warm) == "warm"


# Faults that others' users have reported of such placements.


@pytest.mark.parametrize("slower", [4.0, 0.25])
def test_what_a_warm_up_has_measured_does_not_count_beside_replicas_that_have_answered(slower: float) -> None:
    answered = replace(IDLE, output_tokens=20.0)
    new = replace(IDLE, output_tokens=0.0, step_s=slower * IDLE.step_s, prompt_token_s=slower * IDLE.prompt_token_s)
    snapshot = [Candidate("old", answered, 0), Candidate("new", new, 0)]

    shares = Counter(chosen_of(snapshot, f"r{i}") for i in range(200))

    assert min(shares["old"], shares["new"]) > 60


def test_replicas_that_have_warmed_up_are_compared_by_it_until_one_has_answered() -> None:
    fast = replace(IDLE, output_tokens=0.0)
    slow = replace(fast, step_s=4 * IDLE.step_s, prompt_token_s=4 * IDLE.prompt_token_s)

    assert chosen_of([Candidate("slow", slow, 0), Candidate("fast", fast, 0)]) == "fast"


def test_a_new_replica_that_has_measured_nothing_gets_neither_all_requests_nor_none() -> None:
    """volcano-sh/kthena 1040: latencies of 0 looked like the best ones; vllm-project/aibrix 2771."""
    views = {"new": (ReplicaLoad(), PlacedRequests()), "old": (IDLE, PlacedRequests())}
    counts: Counter[str] = Counter()
    for i in range(200):
        snapshot = [
            Candidate(name, placed.outlook(replace(load, queued_short=(0, 0, 0)), 0.0), counts[name])
            for name, (load, placed) in views.items()
        ]
        name = chosen_of(snapshot, f"request-{i}")
        views[name][1].place(f"request-{i}", Priority.STANDARD, PROMPT, views[name][0], 0.0, 0.0)
        counts[name] += 1
    assert 80 < counts["new"] < 120


def test_routers_that_all_see_one_idle_replica_do_not_all_send_their_requests_there() -> None:
    """ai-dynamo/dynamo 589: each of 16 routers counted its own request alone."""
    routers = 16
    views = [
        {"idle": (replace(IDLE, lanes=routers), PlacedRequests()), "busy": (busy(16_000), PlacedRequests())}
        for _ in range(routers)
    ]
    counts: Counter[str] = Counter()
    for i in range(3 * routers):  # all before the next report
        view = views[i % routers]
        snapshot = [Candidate(name, placed.outlook(load, 0.0), 0) for name, (load, placed) in view.items()]
        name = chosen_of(snapshot, f"request-{i}")
        view[name][1].place(f"request-{i}", Priority.STANDARD, PROMPT, view[name][0], 0.0, 0.0)
        counts[name] += 1
    assert counts["idle"] * PROMPT <= 2 * 16_000  # as much as makes it as busy as the other, and one round more


def test_a_system_prompt_that_all_requests_share_does_not_draw_them_to_one_replica() -> None:
    """ai-dynamo/dynamo 737: all requests of a system prompt went to one of eight instances."""
    outstanding = {name: PlacedRequests() for name in "abcdefgh"}
    counts: Counter[str] = Counter()
    for i in range(80):
        snapshot = [
            Candidate(name, placed.outlook(IDLE, 0.0), counts[name], 500 if counts[name] else 0)
            for name, placed in outstanding.items()
        ]
        name = chosen_of(snapshot, f"request-{i}")
        outstanding[name].place(f"request-{i}", Priority.STANDARD, PROMPT - 500, IDLE, 0.0, 0.0)
        counts[name] += 1
    assert len(counts) == 8
    assert max(counts.values()) <= 2 * min(counts.values())


def test_a_prompt_that_is_cached_nowhere_goes_by_load_not_by_the_emptiest_cache() -> None:
    """sgl-project/sglang 14305: on a miss the worker with the smallest cache was taken, however busy it was."""
    stuck = replace(busy(20_000), blocks_used=1, blocks_total=100)
    idle = replace(IDLE, blocks_used=60, blocks_total=100)
    assert chosen_of([Candidate("stuck", stuck, 9), Candidate("idle", idle, 0)]) == "idle"


def test_idle_replicas_that_report_zeros_give_no_division_by_zero() -> None:
    """volcano-sh/kthena 723, vllm-project/aibrix 1517: scores were NaN or infinite where all were idle."""
    zeros = ReplicaLoad(queued_short=(0, 0, 0), queued_long=(0, 0, 0))
    snapshot = [Candidate("a", zeros, 0), Candidate("b", zeros, 0)]
    assert {chosen_of(snapshot, f"request-{i}", prompt) for i in range(50) for prompt in (0, 1)} == {"a", "b"}


def test_requests_that_end_before_the_next_one_comes_are_shared_all_the_same() -> None:
    """AMD-AGI/Infera 103: with nothing in flight the load term was 0, and one of two workers got every request."""
    slightly_faster = replace(IDLE, step_s=0.99 * IDLE.step_s)
    snapshot = [Candidate("a", slightly_faster, 0), Candidate("b", IDLE, 0)]
    counts = Counter(chosen_of(snapshot, f"request-{i}") for i in range(400))
    assert min(counts["a"], counts["b"]) > 150
