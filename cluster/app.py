"""``build``: the application's actor graph on one page, a typed config in and a Serve application out."""

# No postponed annotations here: Serve reads the builder's annotation to validate its arguments, and a string would
# make it skip that silently.

from pathlib import Path
from typing import Any

from ray import serve
from ray.serve.config import RequestRouterConfig
from ray.serve.deployment import Application

from cluster.config import MantaConfig, TierConfig
from cluster.ingress import Router
from cluster.lanes.pinned_request_router import PinnedRequestRouter
from cluster.replica.ranks import PlacedRanks, bundles
from cluster.replica.tier_replica import EngineFactory, OnStep, ReplicaEngine, TierReplica
from engine.async_engine import AsyncEngine
from engine.engine import Engine
from router.ports.tier_backend import TierDescription
from router.tiers.quality_forecast import Forecaster

# A lane occupies a place among Serve's ongoing requests for as long as its router lives, and every submit a short one.
# Admission is the engine's business (its bounded queue), so Serve's own limit must never be the one that refuses.
MAX_CALLS_PER_REPLICA = 1_000_000


def build(config: MantaConfig) -> Application:
    """The application for ``serve run``: ``Router`` as the ingress and one deployment per tier."""
    return build_with(config, make_engine)


def make_engine(tier: TierConfig, on_step: OnStep) -> ReplicaEngine:
    """The engine of a tier, its model loaded. Runs in the replica's process."""
    launcher = PlacedRanks(tier) if tier.engine.tensor_parallel > 1 else None
    return AsyncEngine(Engine.from_config(tier.engine, launcher), on_step)


def build_with(config: MantaConfig, engine_factory: EngineFactory) -> Application:
    """The same graph around engines of another make, for measuring the graph itself."""
    handles: dict[str, Any] = {tier.name: tier_deployment(tier).bind(tier, engine_factory) for tier in config.tiers}
    tiers = tuple(TierDescription(tier.name, tier.model_name) for tier in config.tiers)
    router = serve.deployment(
        name="Router",
        num_replicas=config.ingress.replicas,
        ray_actor_options={"num_cpus": config.ingress.num_cpus},
        max_replicas_per_node=config.ingress.max_replicas_per_node,  # type: ignore[arg-type]  # None: no limit
        max_ongoing_requests=config.ingress.max_ongoing_requests,
        graceful_shutdown_timeout_s=config.ingress.drain_timeout_s,
    )(Router)
    return router.bind(config.router, config.placement, tiers, handles, read_forecaster(config))


def read_forecaster(config: MantaConfig) -> Forecaster | None:
    """The forecaster in the file ``router.auto.forecast``; None if it is not set, or ``auto`` is not served.

    It is read here, once, and sent to every router: the file need not lie on their nodes, and one that does not fit
    stops the start.

    Raises ValueError for a file that is missing, malformed or fitted to other tiers.
    """
    auto = config.router.auto
    if auto is None or auto.forecast is None:
        return None
    path = auto.forecast
    try:
        forecaster = Forecaster.from_json(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"router.auto.forecast: {path}: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"router.auto.forecast: {path} is no forecaster's file: {error}") from error
    tiers = [tier.name for tier in config.tiers]
    if list(forecaster.tiers) != tiers:
        fitted, here = ", ".join(forecaster.tiers), ", ".join(tiers)
        raise ValueError(f"router.auto.forecast: {path} is fitted to the tiers {fitted}, but configured are {here}")
    return forecaster


def tier_deployment(tier: TierConfig) -> Any:
    """The deployment of a tier's replicas, to be bound to its config and a maker of engines."""
    together: dict[str, Any] = {}
    if tier.engine.tensor_parallel > 1:
        together = {"placement_group_bundles": bundles(tier), "placement_group_strategy": "STRICT_PACK"}
    return serve.deployment(
        name=tier.name,
        num_replicas=tier.replicas,
        ray_actor_options={"num_cpus": tier.num_cpus, "num_gpus": tier.num_gpus, "resources": tier.resources},
        max_ongoing_requests=MAX_CALLS_PER_REPLICA,
        request_router_config=RequestRouterConfig(request_router_class=PinnedRequestRouter),  # type: ignore[arg-type]
        graceful_shutdown_timeout_s=tier.drain_timeout_s,
        graceful_shutdown_wait_loop_s=0.2,  # how soon a drained replica notices; Serve's 2 s only delays shutdown
        health_check_period_s=tier.health_check_period_s,
        **together,
    )(TierReplica)
