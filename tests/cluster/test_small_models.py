"""Safety classifier, embedder and semantic cache in one process: settings, what is bound, and the replica."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from ray.serve.deployment import Application

from cluster.app import build, small_models
from cluster.cache.semantic_cache_replica import FollowerStoppedError
from cluster.config import MantaConfig, StateConfig
from cluster.embedder.config import EmbedderConfig
from cluster.embedder.embedder_replica import LocalEmbedder, load_embedder
from cluster.optional_tiers import without_tiers
from cluster.safety.classifier_replica import load_classifier
from cluster.small_models import small_models_replica
from cluster.small_models.small_models_replica import HostedModels, SmallModelsReplica
from tests.cluster.graph import ROOT, Graph, dev_config
from tests.cluster.small_models import settings
from tests.cluster.workers import actor_pids
from tests.embedder.models import embedder_config

TEXTS = ["the rain is lovely", "bomb"]


def test_the_three_share_one_deployment(tmp_path: Path) -> None:
    links = small_models(settings(tmp_path))

    assert links.classifier is not None
    assert links.embedder is not None
    assert links.cache is not None
    assert isinstance(links.cache.handle, Application)
    assert links.classifier.handle is links.embedder.handle is links.cache.handle


def test_without_the_setting_each_has_a_deployment_of_its_own(tmp_path: Path) -> None:
    links = small_models(settings(tmp_path, small_models=None))

    assert links.classifier is not None
    assert links.embedder is not None
    assert links.cache is not None
    assert len({id(link.handle) for link in links if link is not None}) == 3


def test_without_an_optional_embedder_the_classifier_alone_is_hosted(tmp_path: Path) -> None:
    config = settings(tmp_path)
    missing = {"model": "package:no-such-package/model", "optional": True}
    links = small_models(MantaConfig.model_validate(config.model_dump(exclude_unset=True) | {"embedder": missing}))

    assert links.classifier is not None
    assert (links.embedder, links.cache) == (None, None)


def test_a_missing_model_stops_the_start(tmp_path: Path) -> None:
    config = settings(tmp_path)
    missing = {"model": str(tmp_path / "absent")}
    with pytest.raises(ValueError, match=r"embedder\.model"):
        build(MantaConfig.model_validate(config.model_dump(exclude_unset=True) | {"embedder": missing}))


@pytest.mark.parametrize("key", ["replicas", "num_cpus", "health_check_period_s"])
@pytest.mark.parametrize("service", ["embedder", "cache"])
def test_replicas_are_set_in_one_place(service: str, key: str) -> None:
    arguments = dev_config()
    arguments[service] = arguments[service] | {key: 1}
    with pytest.raises(ValidationError, match=rf"{service}\.{key}: with small_models, small_models\.{key}"):
        MantaConfig.model_validate(arguments)
    MantaConfig.model_validate(arguments | {"small_models": None})


def test_there_must_be_something_to_share() -> None:
    arguments = dev_config() | {"safety": {}, "embedder": None, "cache": None}
    with pytest.raises(ValidationError, match=r"small_models: there is no safety\.classifier, embedder or cache"):
        MantaConfig.model_validate(arguments)


def test_the_setting_stays_when_a_tier_goes() -> None:
    config = MantaConfig.model_validate(dev_config())

    assert without_tiers(config, ["balanced"]).small_models == config.small_models


async def test_a_replica_answers_as_three_would(tmp_path: Path) -> None:
    config = settings(tmp_path)
    classifier, embedder = config.safety.classifier, config.embedder
    assert classifier is not None
    assert embedder is not None
    replica = SmallModelsReplica(HostedModels(classifier, embedder, None, StateConfig()))

    replica.check_health()
    assert (await replica.classify(TEXTS)).scores == tuple(await load_classifier(classifier).classify(TEXTS))
    found, expected = (await replica.embed(TEXTS)).embeddings, await load_embedder(embedder).embed(TEXTS)
    assert found is not None
    np.testing.assert_allclose(found.vectors, expected.vectors, atol=1e-6)
    assert (await replica.status()).keys() == {"pid"}


async def test_loading_the_models_is_no_work_of_a_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load_slowly(config: EmbedderConfig) -> LocalEmbedder:
        loaded = load_embedder(config)
        until = time.process_time() + 0.5
        while time.process_time() < until:
            pass
        return loaded

    monkeypatch.setattr(small_models_replica, "load_embedder", load_slowly)
    embedder = settings(tmp_path).embedder
    replica = SmallModelsReplica(HostedModels(None, embedder, None, StateConfig()))
    assert (await replica.record_autoscaling_stats())["busy_s"] < 0.3


async def test_a_replica_is_not_healthy_if_one_of_the_three_is_not(tmp_path: Path) -> None:
    config = settings(tmp_path)
    replica = SmallModelsReplica(HostedModels(None, embedder_config(tmp_path / "embedder"), config.cache, config.state))
    replica.check_health()

    assert replica._cache is not None
    replica._cache._following.cancel()
    await asyncio.wait([replica._cache._following])
    with pytest.raises(FollowerStoppedError):
        replica.check_health()


@pytest.mark.slow
def test_the_service_of_dev_yaml_has_one_process_for_them(graph: Graph) -> None:
    assert (ROOT / "deployments" / "models" / "safety").is_dir()
    assert len(actor_pids("ServeReplica:manta:SmallModels")) == 1
    for name in ("SafetyClassifier", "Embedder", "SemanticCache"):
        assert actor_pids(f"ServeReplica:manta:{name}") == []
    answer = graph.post("/v1/moderations", {"input": "I will kill you."})
    assert answer.status_code == 200
    assert answer.json()["results"][0]["flagged"]
