"""The deployment ``SafetyClassifier``, and calls to it through a Serve handle."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextvars import Context
from typing import Any, NamedTuple

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from cluster.safety.classifier_client import ClassifierClient
from cluster.safety.classifier_replica import ClassifierReplica, MakeClassifier
from cluster.safety.config import ClassifierConfig
from safety.api import ClassifierUnavailableError
from safety.classifier.artefact import read_artefact

NAME = "SafetyClassifier"

SERVE_FAULTS = (RayError, RayServeException, OSError)
"""The errors of a call through a handle that mean that the replica cannot answer."""

MAX_CALLS_PER_REPLICA = 1_000_000
"""Calls gather in the replica, which batches them. Callers have deadlines, so Serve must never queue calls itself."""


class ClassifierLink(NamedTuple):
    """What a router needs to ask the classifier. ``version`` is that of the files from which the application was
    built. ``handle`` is that of the deployment."""

    config: ClassifierConfig
    version: str
    handle: Any


def bind_classifier(config: ClassifierConfig, make_classifier: MakeClassifier | None = None) -> ClassifierLink:
    """Binds the deployment. ``make_classifier`` None: the model of ``config`` is loaded.

    Raises ValueError, naming the setting, if the model's config.json is missing or wrong: better now than in every
    replica.
    """
    try:
        version = read_artefact(config.model).version
    except (OSError, ValueError) as error:
        raise ValueError(f"safety.classifier.model: {error}") from error
    deployment: Any = serve.deployment(
        name=NAME,
        num_replicas=config.replicas,
        ray_actor_options={"num_cpus": config.num_cpus},
        max_ongoing_requests=MAX_CALLS_PER_REPLICA,
        health_check_period_s=config.health_check_period_s,
        graceful_shutdown_wait_loop_s=0.2,  # between checks that a replica has drained; Serve's default is 2 s
    )(ClassifierReplica)
    return ClassifierLink(config, version, deployment.bind(config, make_classifier))


def classifier_client(link: ClassifierLink) -> ClassifierClient:
    """Returns the classifier of a router. To be called in the router's process."""
    return ClassifierClient(ServeAsk(link.handle), link.config, link.version)


class ServeAsk:
    """Asks one of the deployment's replicas. Implements ``classifier_client.Ask``."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle.options(request_serialization="pickle", response_serialization="pickle")

    async def __call__(self, texts: Sequence[str]) -> object:
        # Outside the context of the HTTP request: Serve gives all calls within one the same internal id, and its
        # routing loop loses one of two calls that have the same id and wait for the same deployment.
        response = Context().run(self._handle.classify.remote, list(texts))
        try:
            return await response
        except SERVE_FAULTS as error:
            raise ClassifierUnavailableError(f"the classifier was lost: {type(error).__name__}") from error
        except asyncio.CancelledError:
            response.cancel()  # the caller has left, or is late: the replica drops the windows that have not begun
            raise
