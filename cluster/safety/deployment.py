"""The deployment ``SafetyClassifier``, and calls to it through a Serve handle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ray.serve.handle import DeploymentHandle

from cluster.model_service.deployment import asked_in_trace, model_deployment, pickling
from cluster.safety.classifier_client import ClassifierClient
from cluster.safety.classifier_replica import ClassifierReplica, MakeClassifier
from cluster.safety.config import ClassifierConfig
from cluster.telemetry.config import TelemetryConfig
from safety.api import ClassifierUnavailableError
from safety.classifier.artefact import read_artefact

NAME = "SafetyClassifier"


class ClassifierLink(NamedTuple):
    """The data that a router needs to call the classifier. ``version`` is the version of the files from which the
    application was built. ``handle`` is the deployment's handle."""

    config: ClassifierConfig
    version: str
    handle: Any


def bind_classifier(
    config: ClassifierConfig,
    make_classifier: MakeClassifier | None = None,
    telemetry: TelemetryConfig | None = None,
    scaled: Mapping[str, Any] | None = None,
) -> ClassifierLink:
    """Binds the deployment and returns the routers' link to it. ``make_classifier`` None: the model of ``config`` is
    loaded. ``telemetry`` None: the defaults. ``scaled`` is as in ``model_deployment``.

    Raises ValueError as ``classifier_version`` does.
    """
    version = classifier_version(config)
    telemetry = telemetry or TelemetryConfig()
    deployment = model_deployment(NAME, ClassifierReplica, config, telemetry.logs, scaled)
    return ClassifierLink(config, version, deployment.bind(config, make_classifier, telemetry))


def classifier_version(config: ClassifierConfig) -> str:
    """Returns the version of the classifier's files.

    Raises ValueError, naming the setting, if the model's config.json is missing or wrong. So the error appears before
    the start of replicas.
    """
    try:
        return read_artefact(config.model).version
    except (OSError, ValueError) as error:
        raise ValueError(f"safety.classifier.model: {error}") from error


def classifier_client(link: ClassifierLink) -> ClassifierClient:
    """Returns a router's client of the classifier. It is called in the router's process."""
    return ClassifierClient(ServeAsk(link.handle), link.config, link.version)


class ServeAsk:
    """Sends a call to one of the deployment's replicas. Implements ``classifier_client.Ask``."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = pickling(handle)

    async def __call__(self, texts: Sequence[str], tenant: str, urgent: bool) -> object:
        handle = self._handle
        optional = {"urgent": True} if urgent else {}
        return await asked_in_trace(
            "classifier",
            lambda **named: handle.classify.remote(list(texts), tenant, **named),
            ClassifierUnavailableError,
            **optional,
        )
