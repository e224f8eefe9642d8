"""The deployment ``Embedder``, and calls to it through a Serve handle."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ray.serve.handle import DeploymentHandle

from cluster.embedder.config import EmbedderConfig
from cluster.embedder.embedder_client import EmbedderClient, EmbedderDescription
from cluster.embedder.embedder_replica import EmbedderReplica, MakeEmbedder
from cluster.embedder.sentence_model_files import SentenceArtefact, read_artefact
from cluster.model_service.deployment import asked_in_trace, model_deployment, pickling
from cluster.telemetry.config import TelemetryConfig
from engine.model.location import ModelNotFoundError
from router.ports.embedder import EmbedderUnavailableError

NAME = "Embedder"

logger = logging.getLogger(__name__)


class EmbedderLink(NamedTuple):
    """The data that a process needs to call the embedder. ``description`` describes the model files from which the
    application was built. ``handle`` is the deployment's handle."""

    config: EmbedderConfig
    description: EmbedderDescription
    handle: Any


def bind_embedder(
    config: EmbedderConfig,
    make_embedder: MakeEmbedder | None = None,
    telemetry: TelemetryConfig | None = None,
    scaled: Mapping[str, Any] | None = None,
) -> EmbedderLink | None:
    """Binds the deployment and returns the routers' link to it. ``make_embedder`` None: the model of ``config`` is
    loaded. ``telemetry`` None: the defaults. ``scaled`` is as in ``model_deployment``.

    Returns None and raises ValueError as ``described_embedder`` does.
    """
    description = described_embedder(config)
    if description is None:
        return None
    telemetry = telemetry or TelemetryConfig()
    deployment = model_deployment(NAME, EmbedderReplica, config, telemetry.logs, scaled)
    return EmbedderLink(config, description, deployment.bind(config, make_embedder, telemetry))


def described_embedder(config: EmbedderConfig) -> EmbedderDescription | None:
    """Returns the description of the embedder that will run the files of ``config``.

    Returns None, after a line in the log, if the model is optional and not on this machine. Raises ValueError, naming
    the setting, if a model that is not optional is missing, or any is malformed. So the error appears before the start
    of replicas.
    """
    try:
        return described(read_artefact(config))
    except ModelNotFoundError as error:
        if config.optional:
            logger.warning("without embeddings: %s", error)
            return None
        raise ValueError(f"embedder.model: {error}") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"embedder.model: {error}") from error


def described(artefact: SentenceArtefact) -> EmbedderDescription:
    """Returns the description of the embedder that will run ``artefact``."""
    return EmbedderDescription(artefact.model, artefact.settings.dimensions, artefact.settings.max_tokens)


def embedder_client(link: EmbedderLink) -> EmbedderClient:
    """Returns a process' client of the embedder. It is called in that process."""
    return EmbedderClient(ServeAsk(link.handle), link.config, link.description)


class ServeAsk:
    """Sends a call to one of the deployment's replicas. Implements ``embedder_client.Ask``."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = pickling(handle)

    async def __call__(self, texts: Sequence[str], tenant: str) -> object:
        return await asked_in_trace(
            "embedder",
            lambda **named: self._handle.embed.remote(list(texts), **named),
            EmbedderUnavailableError,
            tenant=tenant,
        )
