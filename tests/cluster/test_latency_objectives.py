"""The replicas of a tier count latencies up to each of its objectives."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.app import build_with
from cluster.config import MantaConfig, TierConfig
from cluster.latency_objectives import all_objectives, ttft_objectives, with_objectives
from cluster.replica.tier_engine import make_engine
from engine.api import LATENCY_BOUNDS_S, Priority, TtftObjective
from load_tests.chaos.engines import PacedFactory
from tests.cluster.engines import LocalReplica
from tests.cluster.traced_service import FAST


def config(**settings: Any) -> MantaConfig:
    tier = {"engine": {"model": str(FAST), "threads": 1}, "latency_objectives_s": settings.pop("own", ())}
    keys = [{"key": "sk", "tenant": "acme", "team": "core"}]
    router = {"keys": keys, **settings.pop("router", {})}
    return MantaConfig.model_validate({"tiers": {"fast": tier}, "router": router, **settings})


def scaled(**slos: Any) -> dict[str, Any]:
    return {"tiers": {"fast": {"min": 1, "max": 2, "slos": slos}}}


@pytest.mark.parametrize(
    ("settings", "objectives"),
    [
        ({}, ()),
        ({"autoscaling": scaled(standard={"ttft_p99_s": 2.0, "itl_p99_s": 0.1})}, ()),  # buckets end there already
        ({"autoscaling": scaled(standard={"ttft_p99_s": 3.0, "itl_p99_s": 0.075})}, (0.075, 3.0)),
        ({"autoscaling": scaled(standard={"ttft_p99_s": 3.0}, interactive={"ttft_p99_s": 0.3})}, (0.3, 3.0)),
        ({"router": {"admission": {"standard": {"ttft_s": 7.5}}}}, (7.5,)),
        ({"router": {"admission": {"tiers": {"fast": {"batch": {"ttft_s": 90.0}}}}}}, (90.0,)),
        ({"router": {"admission": {"enabled": False, "standard": {"ttft_s": 7.5}}}}, ()),
        ({"own": [0.3, 1.0]}, (0.3,)),
    ],
)
def test_objectives_are_those_of_scaling_and_admission_without_the_usual_bounds(
    settings: dict[str, Any], objectives: tuple[float, ...]
) -> None:
    made = config(**settings)
    assert with_objectives(made, made.tiers[0]).latency_objectives_s == objectives


def test_routers_have_the_objectives_of_all_tiers() -> None:
    made = config(own=[7.5, 0.3])
    first = made.tiers[0]
    second = first.model_copy(update={"name": "other", "latency_objectives_s": (3.0, 0.3, 1.0)})
    assert all_objectives(made.model_copy(update={"tiers": (first, second)})) == (0.3, 3.0, 7.5)


def test_the_application_gives_its_routers_the_objectives() -> None:
    made = config(autoscaling=scaled(standard={"ttft_p99_s": 3.0}))
    router = build_with(made, PacedFactory(0.0))._bound_deployment  # Serve has no public way to them
    assert router.init_args[-1] == (3.0,)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("inf"), float("nan")])
def test_an_objective_that_no_latency_can_have_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="latency_objectives_s"):
        config(own=[seconds])


def test_the_engine_of_a_replica_counts_up_to_the_objectives_and_tells_the_autoscaler_as_ever() -> None:
    tier = config(own=[3.0]).tiers[0]
    assert isinstance(tier, TierConfig)
    engine = make_engine(tier, lambda _: None)
    try:
        bounds = engine.metrics().first_token_s[Priority.STANDARD].bounds
        assert bounds == tuple(sorted((*LATENCY_BOUNDS_S, 3.0)))
        assert len(engine.load().itl) == len(LATENCY_BOUNDS_S) + 1
    finally:
        engine.close()


@pytest.mark.parametrize(
    ("settings", "objectives"),
    [
        ({}, {}),
        (
            {"autoscaling": scaled(standard={"ttft_p99_s": 3.0, "ttft_s_per_1k_tokens": 0.125})},
            {"standard": [3.0, 0.125], "interactive": [3.0, 0.125]},
        ),
        (
            {"autoscaling": scaled(standard={"ttft_p99_s": 3.0}, interactive={"ttft_p99_s": 0.3})},
            {"standard": [3.0, 0.0], "interactive": [0.3, 0.0]},
        ),
        ({"autoscaling": scaled(batch={"ttft_p99_s": 60.0})}, {}),
    ],
)
def test_replicas_get_the_objectives_of_the_policy_which_no_restart_needs(
    settings: dict[str, Any], objectives: dict[str, list[float]]
) -> None:
    made = config(**settings)
    assert ttft_objectives(made, made.tiers[0]) == objectives
    router: Any = build_with(made, PacedFactory(0.0))._bound_deployment
    assert router.init_args[3]["fast"]._bound_deployment.user_config == objectives


async def test_a_running_replica_takes_new_objectives_over() -> None:
    replica = LocalReplica()
    replica.actor.reconfigure({"standard": [3.0, 0.125]})
    assert replica.engine.objectives == {Priority.STANDARD: TtftObjective(3.0, 0.125)}
    replica.actor.reconfigure({"standard": [4.0, 0.0], "interactive": [0.3, 0.0]})
    assert replica.engine.objectives == {
        Priority.STANDARD: TtftObjective(4.0),
        Priority.INTERACTIVE: TtftObjective(0.3),
    }
    replica.actor.reconfigure({})
    assert replica.engine.objectives == {}
