"""Classifier, embedder and semantic cache in one process, with the tracers of three."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from cluster.cache.config import SemanticCacheConfig
from cluster.cache.deployment import SemanticCacheLink, semantic_cache_client
from cluster.cache.semantic_cache_replica import SemanticCacheReplica
from cluster.embedder.config import EmbedderConfig
from cluster.embedder.deployment import EmbedderLink, described_embedder, embedder_client
from cluster.embedder.embedder_replica import EmbedderReplica
from cluster.safety.classifier_replica import ClassifierReplica
from cluster.safety.config import ClassifierConfig
from cluster.safety.deployment import ClassifierLink, classifier_client
from cluster.telemetry.config import TelemetryConfig
from router.ports.answer_cache import HitFeedback, SemanticMatch, SemanticQuestion, SemanticUnavailableError
from router.ports.embedder import Embedder, EmbedderUnavailableError
from tests.cluster.local_handle import LocalHandle
from tests.cluster.otlp_receiver import Received, http_receiver
from tests.cluster.traced_service import CALLER, TRACE, Setup
from tests.embedder.models import embedder_config, write_model
from tests.safety.artefacts import write_classifier

NOWHERE = "http://127.0.0.1:9/v1/traces"
SAMPLED = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
DROPPED = {"traceparent": f"00-{TRACE}-{CALLER}-00"}
QUESTION = SemanticQuestion("acme", "ab" * 32, "short rain today", 0.1)
CLASSIFIER = ClassifierConfig(model=Path("unused"))
NEVER = {"block": None, "review": None}
"""A band in which no score has an effect: the weights of the classifiers here are drawn."""


class EmbeddingIndex:
    """A semantic index that embeds each question and finds nothing. Implements ``SemanticIndex``."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    async def lookup(self, question: SemanticQuestion) -> SemanticMatch | None:
        try:
            await self._embedder.embed([question.text])
        except EmbedderUnavailableError as error:
            raise SemanticUnavailableError(str(error)) from error
        return None

    async def feedback(self, feedback: HitFeedback) -> None:
        await self._embedder.embed([feedback.question])


class IndexParts:
    """The parts of a replica whose index follows nothing. Implements ``LocalParts``."""

    follower: Any = None

    def __init__(self, embedder: Embedder) -> None:
        self.index = EmbeddingIndex(embedder)

    async def start(self) -> None:
        await asyncio.Event().wait()

    async def close(self) -> None:
        pass


@dataclass
class Actors:
    """The three actors in this process, with real models, and the handles to them."""

    classifier: LocalHandle
    embedder: LocalHandle
    cache: LocalHandle
    replicas: tuple[ClassifierReplica, EmbedderReplica, SemanticCacheReplica]
    setup: Setup

    def close(self) -> None:
        for replica in self.replicas:
            replica.__del__()
        self.replicas[2]._following.cancel()


def actors(telemetry: TelemetryConfig, files: Path) -> Actors:
    classifier_files, embedder_files = files / "classifier", files / "embedder"
    for each in (classifier_files, embedder_files):
        each.mkdir()
    of_classifier = ClassifierConfig(model=write_classifier(classifier_files))
    of_embedder: EmbedderConfig = embedder_config(write_model(embedder_files))
    of_cache = SemanticCacheConfig(pair_model=files, deadline_ms=5000)
    embedder = EmbedderReplica(of_embedder, telemetry=telemetry)
    description = described_embedder(of_embedder)
    assert description is not None
    embedder_link = EmbedderLink(of_embedder, description, LocalHandle(embedder))
    cache = SemanticCacheReplica(of_cache, lambda link: IndexParts(embedder_client(link)), embedder_link, telemetry)
    classifier = ClassifierReplica(of_classifier, telemetry=telemetry)
    links = ClassifierLink(of_classifier, "1", LocalHandle(classifier)), SemanticCacheLink(of_cache, LocalHandle(cache))
    setup = Setup(
        policy={"content": NEVER, "content_answers": NEVER, "injection": {"user": NEVER}, "deadline_s": 10},
        classifier=classifier_client(links[0]),
        embedder=embedder_client(embedder_link),
        semantic=semantic_cache_client(links[1]),
    )
    return Actors(links[0].handle, embedder_link.handle, links[1].handle, (classifier, embedder, cache), setup)


@contextmanager
def traced_actors(tmp_path: Path, **settings: Any) -> Iterator[tuple[Received, Actors]]:
    with http_receiver() as received:
        running = actors(TelemetryConfig(endpoint=received.endpoint, **settings), tmp_path)
        try:
            yield received, running
        finally:
            running.close()


def child(received: Received, parent: Span, name: str) -> Span:
    """The only span ``name`` within ``parent``."""
    (found,) = [each for each in received.spans if each.parent_span_id == parent.span_id and each.name == name]
    return found
