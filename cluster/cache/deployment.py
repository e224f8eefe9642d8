"""The deployment ``SemanticCache``, and calls to it through a Serve handle."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from ray import serve
from ray.serve.handle import DeploymentHandle

from cluster.cache.config import SemanticCacheConfig
from cluster.cache.pair_stage import PairStage, read_pair_stage
from cluster.cache.replica_parts import RedisParts
from cluster.cache.semantic_cache_client import SemanticCacheClient
from cluster.cache.semantic_cache_replica import LocalParts, SemanticCacheReplica
from cluster.config import StateConfig
from cluster.embedder.deployment import EmbedderLink, embedder_client
from cluster.embedder.embedder_client import EmbedderDescription
from cluster.model_service.deployment import MAX_CALLS_PER_REPLICA, asked, asked_in_trace, pickling
from cluster.telemetry.config import TelemetryConfig
from cluster.telemetry.logs import serve_logging
from router.ports.answer_cache import HitFeedback, SemanticQuestion, SemanticUnavailableError
from router.ports.embedder import Embedder

NAME = "SemanticCache"

logger = logging.getLogger(__name__)

MakePairStage = Callable[[SemanticCacheConfig], PairStage]
"""Makes the second stage of a replica, in its process."""


class SemanticCacheLink(NamedTuple):
    """The data that a router needs to call the semantic cache. ``handle`` is the deployment's handle."""

    config: SemanticCacheConfig
    handle: Any


def bind_semantic_cache(
    config: SemanticCacheConfig,
    state: StateConfig,
    embedder: EmbedderLink | None,
    make_pair_stage: MakePairStage = read_pair_stage,
    telemetry: TelemetryConfig | None = None,
    scaled: Mapping[str, Any] | None = None,
) -> SemanticCacheLink | None:
    """Binds the deployment and returns the routers' link to it. ``telemetry`` None: the defaults. ``scaled`` has
    Serve's options for the number of replicas; None: it is ``config.replicas``.

    Returns None if ``can_run`` says that the semantic cache cannot run, and raises ValueError as it does.
    """
    if not can_run(config, state, embedder, make_pair_stage):
        return None
    telemetry = telemetry or TelemetryConfig()
    deployment: Any = serve.deployment(
        name=NAME,
        **({"num_replicas": config.replicas} if scaled is None else scaled),
        ray_actor_options={"num_cpus": config.num_cpus},
        max_ongoing_requests=MAX_CALLS_PER_REPLICA,
        health_check_period_s=config.health_check_period_s,
        logging_config=serve_logging(telemetry.logs),
        graceful_shutdown_wait_loop_s=0.2,  # between checks that a replica has drained; Serve's default is 2 s
    )(SemanticCacheReplica)
    # The handle of the embedder must be an argument of its own, where Serve looks for it.
    make_parts = partial(redis_parts, config, state, make_pair_stage)
    return SemanticCacheLink(config, deployment.bind(config, make_parts, embedder, telemetry))


def can_run(
    config: SemanticCacheConfig,
    state: StateConfig,
    embedder: EmbedderLink | EmbedderDescription | None,
    make_pair_stage: MakePairStage = read_pair_stage,
) -> bool:
    """Returns whether the semantic cache can run. False, after a line in the log, if only exact hits are possible:
    without an ``embedder``, without Redis, or without an optional pair model.

    Raises ValueError, naming the setting, if a pair model that is not optional is missing, or any is malformed.
    """
    if embedder is None or not state.shared:
        what = "an embedder" if embedder is None else "Redis (state.url), which the index follows"
        logger.warning("answers are found by their exact question only: the semantic cache needs %s", what)
        return False
    try:
        make_pair_stage(config)
    except FileNotFoundError as error:
        if config.optional:
            logger.warning("answers are found by their exact question only: %s", error)
            return False
        raise ValueError(f"cache.pair_model: {error}") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"cache.pair_model: {error}") from error
    return True


def redis_parts(
    config: SemanticCacheConfig, state: StateConfig, make_pair_stage: MakePairStage, embedder: EmbedderLink | Embedder
) -> LocalParts:
    """Returns the parts of a replica. It is called in the replica's process. ``embedder`` is the link to the embedder's
    deployment, or an embedder in this process. Raises ValueError if ``state`` has no Redis or its URL cannot be used,
    and what ``make_pair_stage`` raises."""
    url = state.read_url()
    if url is None:
        raise ValueError("state.url: the semantic cache needs Redis")
    used = embedder_client(embedder) if isinstance(embedder, EmbedderLink) else embedder
    return RedisParts(config, state, url, used, make_pair_stage(config))


def semantic_cache_client(link: SemanticCacheLink) -> SemanticCacheClient:
    """Returns a router's client of the semantic index. It is called in the router's process."""
    return SemanticCacheClient(ServeAsk(link.handle), link.config)


class ServeAsk:
    """Sends a call to one of the deployment's replicas. Implements ``semantic_cache_client.Ask``."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = pickling(handle)

    async def lookup(self, question: SemanticQuestion) -> object:
        return await asked_in_trace(
            "semantic index",
            lambda **trace: self._handle.lookup.remote(question, **trace),
            SemanticUnavailableError,
        )

    async def feedback(self, feedback: HitFeedback) -> object:
        return await asked("semantic index", lambda: self._handle.feedback.remote(feedback), SemanticUnavailableError)
