"""The deployment ``SafetyClassifier``, and calls to it through a Serve handle."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ray.serve.handle import DeploymentHandle

from cluster.model_service.deployment import asked_in_trace, model_deployment, pickling
from cluster.safety.classifier_client import ClassifierClient
from cluster.safety.classifier_replica import ClassifierReplica, MakeClassifier
from cluster.safety.config import ClassifierConfig, SecondOpinionConfig
from cluster.telemetry.config import TelemetryConfig
from engine.model.location import ModelNotFoundError, locate
from safety.api import ClassifierUnavailableError
from safety.classifier.artefact import Artefact, read_artefact

NAME = "SafetyClassifier"

logger = logging.getLogger(__name__)


class ClassifierLink(NamedTuple):
    """The data that a router needs to call the classifier. ``config`` and ``version`` are as in
    ``DescribedClassifier``. ``handle`` is the deployment's handle."""

    config: ClassifierConfig
    version: str
    handle: Any


class DescribedClassifier(NamedTuple):
    """The classifier that replicas will run. ``config`` has a second opinion only if it will be asked. ``version`` is
    the version of the scores, by the files from which the application is built."""

    config: ClassifierConfig
    version: str


def bind_classifier(
    config: ClassifierConfig,
    make_classifier: MakeClassifier | None = None,
    telemetry: TelemetryConfig | None = None,
    scaled: Mapping[str, Any] | None = None,
) -> ClassifierLink:
    """Binds the deployment and returns the routers' link to it. ``make_classifier`` None: the model of ``config`` is
    loaded. ``telemetry`` None: the defaults. ``scaled`` is as in ``model_deployment``.

    Raises ValueError as ``described_classifier`` does.
    """
    config, version = described_classifier(config)
    telemetry = telemetry or TelemetryConfig()
    deployment = model_deployment(NAME, ClassifierReplica, config, telemetry.logs, scaled)
    return ClassifierLink(config, version, deployment.bind(config, make_classifier, telemetry))


def described_classifier(config: ClassifierConfig) -> DescribedClassifier:
    """Returns the description of the classifier that will run the files of ``config``.

    It has no second opinion, after a line in the log, where the files describe none, or where its model is optional and
    not on this machine. Raises ValueError, naming the setting, if the classifier's config.json or another model of a
    second opinion is missing, or config.json is wrong. So the error appears before the start of replicas.
    """
    try:
        artefact = read_artefact(config.model)
    except (OSError, ValueError) as error:
        raise ValueError(f"safety.classifier.model: {error}") from error
    second = _found(config.second_opinion, artefact)
    version = artefact.version_with(second is not None)
    return DescribedClassifier(config.model_copy(update={"second_opinion": second}), version)


def _found(second: SecondOpinionConfig | None, artefact: Artefact) -> SecondOpinionConfig | None:
    """Returns the second opinion that will be asked. Raises ValueError if it is missing and not optional."""
    if second is None:
        return None
    if artefact.second_opinion is None:
        logger.warning("without a second opinion: the files of the classifier %s describe none", artefact.version)
        return None
    try:
        locate(second.model)
    except ModelNotFoundError as error:
        if second.optional:
            logger.warning("the classifier judges without a second opinion: %s", error)
            return None
        raise ValueError(f"safety.classifier.second_opinion: {error}") from error
    return second


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
