"""The deployment ``SmallModels``, which takes the place of ``SafetyClassifier``, ``Embedder`` and ``SemanticCache``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from cluster.cache.deployment import SemanticCacheLink, can_run
from cluster.config import MantaConfig
from cluster.embedder.deployment import EmbedderLink, described_embedder
from cluster.model_service.config import ReplicaSettings
from cluster.model_service.deployment import model_deployment
from cluster.safety.deployment import ClassifierLink, described_classifier
from cluster.small_models.small_models_replica import HostedModels, SmallModelsReplica

NAME = "SmallModels"


class SmallModelLinks(NamedTuple):
    """The data that a router needs to call the small models, in one deployment or in three; None: there is none."""

    classifier: ClassifierLink | None
    embedder: EmbedderLink | None
    cache: SemanticCacheLink | None


def bind_small_models(
    settings: ReplicaSettings, config: MantaConfig, scaled: Mapping[str, Any] | None = None
) -> SmallModelLinks:
    """Binds the deployment, with replicas as ``settings`` says, and returns the routers' links to it. ``scaled`` is as
    in ``model_deployment``.

    Raises ValueError, naming the setting, as ``bind_classifier``, ``bind_embedder`` and ``bind_semantic_cache`` do.
    """
    classifier, embedder, cache = config.safety.classifier, config.embedder, config.cache
    described = None if classifier is None else described_classifier(classifier)
    description = None if embedder is None else described_embedder(embedder)
    if cache is not None and not can_run(cache, config.state, description):
        cache = None
    if described is None and description is None:
        return SmallModelLinks(None, None, None)
    hosted_classifier = None if described is None else described.config
    hosted = HostedModels(hosted_classifier, None if description is None else embedder, cache, config.state)
    deployment = model_deployment(NAME, SmallModelsReplica, settings, config.telemetry.logs, scaled)
    handle = deployment.bind(hosted, config.telemetry)
    return SmallModelLinks(
        None if described is None else ClassifierLink(*described, handle),
        None if embedder is None or description is None else EmbedderLink(embedder, description, handle),
        None if cache is None else SemanticCacheLink(cache, handle),
    )
