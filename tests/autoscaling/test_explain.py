from __future__ import annotations

from cluster.autoscaling.decision import Reason
from cluster.autoscaling.explain import explain
from tests.autoscaling.reason_cases import CASES
from tests.autoscaling.snapshots import Bench


def test_a_decision_is_explained_in_words_with_its_numbers() -> None:
    assert explain(CASES[Reason.GPU_BUDGET]()).splitlines()[0] == (
        "fast: 2 replicas, unchanged. The pool has 4 GPUs: 2 of 4 wanted replicas fit beside the other tiers, by load "
        "and weight."
    )
    assert explain(CASES[Reason.WAITING_ROOM]()).splitlines() == [
        "fast: 1 replica, up from 0. 3 requests wait for a first replica; a cold start takes 20 s.",
        "Replicas: none. Load: 3 requests in flight, 1500 prompt tokens queued.",
        "Why not more: The load needs 1.00 replicas.",
        "Why not fewer: 3 requests wait for a first replica; a cold start takes 20 s.",
    ]


def test_what_speaks_against_fewer_is_named_with_the_prediction() -> None:
    assert explain(CASES[Reason.CONSOLIDATION]()).splitlines()[-1] == (
        "Why not fewer: With 5 replicas, 1.44 is predicted where 1.27 is allowed. This is by backlog."
    )


def test_signals_are_listed_from_the_highest_need_down() -> None:
    lines = [line for line in explain(CASES[Reason.FLOW]()).splitlines() if line.startswith("  ")]
    needs = [float(line.split("asks for ")[1].split()[0]) for line in lines]
    assert needs == sorted(needs, reverse=True)
    assert "requests/s arrive, one replica serves" in lines[0]


def test_an_error_in_the_input_is_part_of_the_explanation() -> None:
    assert "TypeError" in explain(CASES[Reason.BAD_INPUT]())


def test_the_headroom_is_explained_with_its_reason() -> None:
    decisions = Bench(rate=20.0, running=5).run(301)
    assert "headroom 1.05 x the standard deviation of those within 2 s;" in explain(decisions[299])
    assert "headroom 0.25 x the standard deviation of those within 2 s as the flow is steady;" in explain(
        decisions[300]
    )
