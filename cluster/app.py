"""``build``: makes the Ray Serve application, with all its deployments, from a ``MantaConfig``."""

# No postponed annotations here: Serve reads the builder's annotation to validate its arguments, and a string would
# make it skip the validation silently.

import warnings
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve.config import AutoscalingConfig as ServeAutoscalingConfig
from ray.serve.config import AutoscalingPolicy, RequestRouterConfig
from ray.serve.deployment import Application

from cluster.autoscaling.config import AutoscalingConfig, WaitingRoomConfig
from cluster.cache.deployment import NAME as SEMANTIC_CACHE
from cluster.cache.deployment import bind_semantic_cache
from cluster.config import ROUTER, MantaConfig, TierConfig
from cluster.embedder.deployment import NAME as EMBEDDER
from cluster.embedder.deployment import bind_embedder
from cluster.ingress import Router
from cluster.lanes.pinned_request_router import PinnedRequestRouter
from cluster.latency_objectives import all_objectives, ttft_objectives, with_objectives
from cluster.model_version import has_model_files, model_version
from cluster.optional_tiers import missing_tiers, without_tiers
from cluster.replica.rank_launcher import bundles
from cluster.replica.tier_engine import make_engine
from cluster.replica.tier_replica import EngineFactory, TierReplica
from cluster.safety.deployment import NAME as SAFETY_CLASSIFIER
from cluster.safety.deployment import bind_classifier
from cluster.small_models.deployment import NAME as SMALL_MODELS
from cluster.small_models.deployment import SmallModelLinks, bind_small_models
from cluster.telemetry.config import LogsConfig, TelemetryConfig
from cluster.telemetry.logs import serve_logging
from router.ports.tier_backend import TierDescription
from router.ports.tier_scaling import ReplicaBounds
from router.tiers.quality_forecast import Forecaster

# A lane counts as one of Serve's ongoing requests for as long as its router lives, a submit for a short time. Admission
# control is the engine's (its bounded waiting queue), so Serve's own limit must never refuse a call.
MAX_CALLS_PER_REPLICA = 1_000_000


def build(config: MantaConfig) -> Application:
    """Returns the application for ``serve run``: the deployment ``Router`` as the ingress, one deployment per tier,
    ``SafetyClassifier`` if ``safety.classifier`` is set, ``Embedder`` if ``embedder`` is set, and ``SemanticCache`` if
    ``cache`` is set; with ``small_models``, ``SmallModels`` instead of these three.

    Leaves out the optional tiers whose model is missing. Raises ValueError if no tier is left, and as ``build_with``
    does.
    """
    return build_with(without_tiers(config, missing_tiers(config)), make_engine)


def build_with(config: MantaConfig, engine_factory: EngineFactory) -> Application:
    """Returns the application of ``build`` with another engine, for tests and measurements without a real model.

    Raises ValueError as ``bind_classifier``, ``bind_embedder``, ``bind_semantic_cache``, ``bind_small_models`` and
    ``read_forecaster`` do.
    """
    logs = config.telemetry.logs
    handles: dict[str, Any] = {
        tier.name: tier_deployment(tier, replicas_of(config, tier), logs, ttft_objectives(config, tier)).bind(
            with_objectives(config, tier), engine_factory, config.telemetry
        )
        for tier in config.tiers
    }
    tiers = tuple(_description(config, tier) for tier in config.tiers)
    router = serve.deployment(
        name=ROUTER,
        **(scaled_follower(config, ROUTER) or {"num_replicas": config.ingress.replicas}),
        ray_actor_options={"num_cpus": config.ingress.num_cpus},
        max_replicas_per_node=config.ingress.max_replicas_per_node,  # type: ignore[arg-type]  # None: no limit
        max_ongoing_requests=config.ingress.max_ongoing_requests,
        graceful_shutdown_timeout_s=config.ingress.drain_timeout_s,
        logging_config=serve_logging(logs),
    )(Router)
    classifier, embedder, cache = small_models(config)
    forecaster = read_forecaster(config)
    policies = config.safety.policies
    return router.bind(
        config.router,
        config.placement,
        tiers,
        handles,
        forecaster,
        config.state,
        classifier,
        policies,
        embedder,
        cache,
        replica_bounds(config),
        config.telemetry,
        waiting_rooms(config),
        has_warm_pools(config),
        all_objectives(config),
    )


def _description(config: MantaConfig, tier: TierConfig) -> TierDescription:
    """Returns what the routers know of a tier. Without its model's files on this machine, its replicas have a version
    that is not known here."""
    version = model_version(tier.engine)
    return TierDescription(
        tier.name,
        tier.model_name,
        tier.sampling.parameters,
        version,
        replica_version=version if has_model_files(tier.engine) else "",
        drain_timeout_s=tier.drain_timeout_s,
        replicas=replicas_of(config, tier).get("num_replicas"),
    )


def small_models(config: MantaConfig) -> SmallModelLinks:
    """Binds the deployments of the safety classifier, the embedder and the semantic cache, or the one that runs all of
    them. Returns the routers' links to them. Raises ValueError as ``build_with`` does."""
    if config.small_models is not None:
        return bind_small_models(config.small_models, config, scaled_follower(config, SMALL_MODELS))
    telemetry = config.telemetry
    classifier = embedder = cache = None
    if config.safety.classifier is not None:
        scaled = scaled_follower(config, SAFETY_CLASSIFIER)
        classifier = bind_classifier(config.safety.classifier, telemetry=telemetry, scaled=scaled)
    if config.embedder is not None:
        scaled = scaled_follower(config, EMBEDDER)
        embedder = bind_embedder(config.embedder, telemetry=telemetry, scaled=scaled)
    if config.cache is not None:
        scaled = scaled_follower(config, SEMANTIC_CACHE)
        cache = bind_semantic_cache(config.cache, config.state, embedder, telemetry=telemetry, scaled=scaled)
    return SmallModelLinks(classifier, embedder, cache)


def read_forecaster(config: MantaConfig) -> Forecaster | None:
    """Returns the forecaster in the file ``router.auto.forecast``; None if that is not set, or ``auto`` is not served.

    The file is read once, where the application is built, and its contents are sent to every router. So it need not be
    on the routers' nodes, and a wrong file stops the start. Raises ValueError for a file that is missing, malformed or
    fitted to other tiers than those of ``config``.
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
    if [tier for tier in forecaster.tiers if tier in tiers] != tiers:
        fitted, here = ", ".join(forecaster.tiers), ", ".join(tiers)
        raise ValueError(f"router.auto.forecast: {path} is fitted to the tiers {fitted}, but configured are {here}")
    return forecaster.narrowed(tiers)


def replica_bounds(config: MantaConfig) -> dict[str, ReplicaBounds] | None:
    """Returns the bounds of each tier whose number of replicas is not fixed; None if nothing is scaled."""
    scaling = config.autoscaling
    if scaling is None or not (scaling.tiers or scaling.followers):
        return None
    return {name: ReplicaBounds(tier.min, tier.max) for name, tier in scaling.tiers.items()}


def waiting_rooms(config: MantaConfig) -> dict[str, WaitingRoomConfig]:
    """Returns the settings of the waiting room of each tier that may be at zero replicas."""
    tiers = {} if config.autoscaling is None else config.autoscaling.tiers
    return {name: tier.waiting_room for name, tier in tiers.items() if tier.min == 0}


def has_warm_pools(config: MantaConfig) -> bool:
    """Returns whether some tiers have replicas that serve nothing."""
    return config.autoscaling is not None and any(tier.warm for tier in config.autoscaling.tiers.values())


def replicas_of(config: MantaConfig, tier: TierConfig) -> dict[str, Any]:
    """Returns the options of a tier's Serve deployment for the number of its replicas: ``num_replicas`` or
    ``autoscaling_config``.

    The warm pool is not in Serve's minimum: where the GPUs do not suffice for it, the policy asks for fewer, and Serve
    would raise that to its minimum again.
    """
    scaling = config.autoscaling
    if scaling is None or tier.name not in scaling.tiers:
        return {"num_replicas": tier.replicas}
    bounds = scaling.tiers[tier.name]
    return scaled_between(config, scaling, bounds.min, bounds.max + bounds.warm)


def scaled_follower(config: MantaConfig, name: str) -> dict[str, Any] | None:
    """Returns the option ``autoscaling_config`` of the deployment ``name``; None if its number of replicas is fixed."""
    scaling = config.autoscaling
    if scaling is None or name not in scaling.followers:
        return None
    return scaled_between(config, scaling, scaling.followers[name].min, scaling.followers[name].max)


def scaled_between(config: MantaConfig, scaling: AutoscalingConfig, least: int, most: int) -> dict[str, Any]:
    """Returns the option ``autoscaling_config`` of a deployment with ``least`` to ``most`` replicas."""
    gpus = {tier.name: tier.num_gpus * tier.engine.tensor_parallel for tier in config.tiers}
    return {"autoscaling_config": serve_autoscaling(scaling, gpus, least, most, config.telemetry)}


def serve_autoscaling(
    scaling: AutoscalingConfig, gpus: dict[str, float], least: int, most: int, telemetry: TelemetryConfig
) -> ServeAutoscalingConfig:
    """Returns Serve's autoscaling of a tier or follower between ``least`` and ``most`` replicas, by our policy.
    ``gpus`` are those of a replica, by tier. ``telemetry`` says how the policy logs, and where its metrics go.

    The policy has its own rules against flapping, so Serve's delays are zero. Reports come twice per control interval:
    if they came once, a decision would see the arrivals of none or of two, which looks like requests that come in
    batches, and the policy would wait longer for a surge.
    """
    report_s = scaling.interval_s / 2
    sending = telemetry.sending()
    with warnings.catch_warnings():
        # metrics_interval_s is deprecated for environment variables that Serve does not read yet.
        warnings.simplefilter("ignore", DeprecationWarning)
        return ServeAutoscalingConfig(
            min_replicas=least,
            max_replicas=most,
            upscale_delay_s=0.0,
            downscale_delay_s=0.0,
            metrics_interval_s=report_s,
            look_back_period_s=2 * report_s,
            policy=AutoscalingPolicy(
                policy_function="cluster.autoscaling.serve_policy:TierAutoscaler",
                policy_kwargs={
                    # Defaults do not travel: a controller of an earlier release refuses names that it does not know.
                    "settings": scaling.model_dump(mode="json", exclude_unset=True),
                    "gpus": gpus,
                    "logs": telemetry.logs.model_dump(mode="json", exclude_unset=True),
                    **({} if sending is None else {"sending": sending}),
                },
            ),
        )


def tier_deployment(
    tier: TierConfig, replicas: dict[str, Any], logs: LogsConfig, objectives: dict[str, list[float]] | None = None
) -> Any:
    """Returns the deployment of a tier. ``replicas`` has Serve's options for the number of its replicas, ``objectives``
    are those of ``ttft_objectives``: running replicas take new ones over. The caller binds it to the tier's config, an
    ``EngineFactory`` and the settings of the telemetry."""
    placement_group: dict[str, Any] = {}
    if tier.engine.tensor_parallel > 1:
        placement_group = {"placement_group_bundles": bundles(tier), "placement_group_strategy": "STRICT_PACK"}
    return serve.deployment(
        name=tier.name,
        **replicas,
        user_config=objectives or {},
        ray_actor_options={"num_cpus": tier.num_cpus, "num_gpus": tier.num_gpus, "resources": tier.resources},
        max_ongoing_requests=MAX_CALLS_PER_REPLICA,
        request_router_config=RequestRouterConfig(request_router_class=PinnedRequestRouter),  # type: ignore[arg-type]
        graceful_shutdown_timeout_s=tier.drain_timeout_s,
        graceful_shutdown_wait_loop_s=0.2,  # between checks that a replica has drained; Serve's default is 2 s
        health_check_period_s=tier.health_check_period_s,
        logging_config=serve_logging(logs),
        **placement_group,
    )(TierReplica)
