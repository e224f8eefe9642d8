"""A replica of an earlier release, which knows no trace or no tenant, is asked again without; a broken one is not."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from ray import serve

from cluster.embedder.deployment import EmbedderLink, embedder_client
from cluster.embedder.embedder_client import EmbedderDescription
from cluster.embedder.embedder_replica import EmbedderReplica
from cluster.safety.classifier_replica import ClassifierReplica
from cluster.safety.classifier_reply import ClassifierReply
from cluster.safety.deployment import ClassifierLink, classifier_client
from cluster.telemetry.log_context import logged_request
from safety.api import ClassifierUnavailableError, Scores
from safety.classifier.batching_classifier import BatchingClassifier
from tests.cluster.local_fake import LocalFake
from tests.cluster.local_handle import LocalHandle
from tests.cluster.traced_actors import CLASSIFIER, SAMPLED
from tests.cluster.traced_classifier import classifier, directory, scripted
from tests.embedder.models import embedder_config

__all__ = ["classifier", "directory", "scripted"]


class EarlierClassifier:
    """A replica of a release without traces of calls."""

    def __init__(self, replica: ClassifierReplica) -> None:
        self._replica = replica

    async def classify(self, texts: Sequence[str], tenant: str = "") -> object:
        return await self._replica.classify(texts, tenant)


@pytest.mark.parametrize("wraps", [True, False], ids=["Ray's calls", "gRPC"])
async def test_a_replica_of_an_earlier_release_is_asked_without_the_trace(
    classifier: BatchingClassifier, wraps: bool
) -> None:
    replica = ClassifierReplica(CLASSIFIER, lambda _: classifier)
    handle = LocalHandle(EarlierClassifier(replica), wraps=wraps)
    client = classifier_client(ClassifierLink(CLASSIFIER, "1", handle))
    with logged_request("req_1", lambda: SAMPLED["traceparent"], "vendor=1"):
        (scores,) = await client.classify(["a"])
    assert scores.injection == pytest.approx(ord("a") / 256, abs=1e-6)
    headers = {**SAMPLED, "tracestate": "vendor=1"}
    assert handle.calls == [("classify", {"trace": headers}), ("classify", {})]
    assert client.state.value == "closed"


@pytest.mark.parametrize("wraps", [True, False], ids=["Ray's calls", "gRPC"])
async def test_a_replica_of_an_earlier_release_is_asked_without_the_urgency(
    classifier: BatchingClassifier, wraps: bool
) -> None:
    replica = ClassifierReplica(CLASSIFIER, lambda _: classifier)
    handle = LocalHandle(EarlierClassifier(replica), wraps=wraps)
    client = classifier_client(ClassifierLink(CLASSIFIER, "1", handle))
    (scores,) = await client.classify(["a"], "acme", urgent=True)
    assert scores.injection == pytest.approx(ord("a") / 256, abs=1e-6)
    assert handle.calls == [("classify", {"urgent": True}), ("classify", {})]
    assert client.state.value == "closed"


async def test_a_replica_is_told_of_the_urgency(classifier: BatchingClassifier) -> None:
    handle = LocalHandle(ClassifierReplica(CLASSIFIER, lambda _: classifier))
    client = classifier_client(ClassifierLink(CLASSIFIER, "1", handle))
    await client.classify(["a"], "acme", urgent=True)
    await client.classify(["b"], "acme")
    assert handle.calls == [("classify", {"urgent": True}), ("classify", {})]


class EarlierEmbedder:
    """A replica of a release whose embedder knows no tenants."""

    def __init__(self, replica: EmbedderReplica) -> None:
        self._replica = replica

    async def embed(self, texts: Sequence[str], trace: Mapping[str, str] | None = None) -> object:
        return await self._replica.embed(texts, trace=trace)


@pytest.mark.parametrize("wraps", [True, False], ids=["Ray's calls", "gRPC"])
async def test_an_embedder_of_an_earlier_release_is_asked_without_the_tenant(wraps: bool) -> None:
    fake = LocalFake()
    handle = LocalHandle(EarlierEmbedder(EmbedderReplica(embedder_config("unused"), lambda _: fake)), wraps=wraps)
    description = EmbedderDescription("fake@1", 64, 256)
    client = embedder_client(EmbedderLink(embedder_config("unused"), description, handle))
    with logged_request("req_1", lambda: SAMPLED["traceparent"]):
        found = await client.embed(["a"], "acme")
    assert (found.model, fake.tenants) == ("fake@1", [""])
    assert handle.calls == [("embed", {"tenant": "acme", "trace": SAMPLED}), ("embed", {"trace": SAMPLED})]
    assert client.state.value == "closed"


@pytest.mark.slow
def test_serve_has_an_earlier_replica_asked_again_too(serve_port: int, handle_loop: asyncio.AbstractEventLoop) -> None:
    class Earlier:  # here, so that it is sent by value
        def __init__(self) -> None:
            self.calls = 0

        async def classify(self, texts: Sequence[str], tenant: str = "") -> ClassifierReply:
            self.calls += 1
            return ClassifierReply(f"v{self.calls}", (Scores({"violence": 0.5}, 0.25, flagged=False),))

    deployment: Any = serve.deployment(ray_actor_options={"num_cpus": 0})(Earlier)
    handle = serve.run(deployment.bind(), name="earlier", route_prefix=None)

    async def asked() -> tuple[str, str]:
        client = classifier_client(ClassifierLink(CLASSIFIER, "1", handle))  # here: a handle belongs to a loop
        with logged_request("req_1", lambda: SAMPLED["traceparent"]):
            await client.classify(["a"])
        return client.version, client.state.value

    assert asyncio.run_coroutine_threadsafe(asked(), handle_loop).result(60) == ("v1", "closed")
    serve.delete("earlier")


@pytest.mark.parametrize("wraps", [True, False], ids=["Ray's calls", "gRPC"])
@pytest.mark.parametrize("error", [RuntimeError("no type is wrong"), TypeError("a type is wrong in the model")])
async def test_a_replica_that_breaks_is_asked_once(error: Exception, wraps: bool) -> None:
    class Broken:
        async def classify(self, *arguments: object, **named: object) -> object:
            raise error

    handle = LocalHandle(Broken(), wraps=wraps)
    client = classifier_client(ClassifierLink(CLASSIFIER, "1", handle))
    raised = ClassifierUnavailableError if wraps else type(error)
    with logged_request("req_1", lambda: SAMPLED["traceparent"]), pytest.raises(raised):
        await client.classify(["a"])
    assert len(handle.calls) == 1
