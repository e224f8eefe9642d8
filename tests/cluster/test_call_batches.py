"""A call that is traced has the batches that computed it, by its own times."""

from __future__ import annotations

import asyncio

from cluster.safety.classifier_replica import ClassifierReplica
from cluster.telemetry.config import TelemetryConfig
from cluster.telemetry.noted_batches import note_batches
from router.ports.trace_names import Attribute
from safety.classifier.batching_classifier import BatchingClassifier
from tests.cluster.otlp_receiver import attributes, http_receiver
from tests.cluster.traced_actors import CLASSIFIER, SAMPLED
from tests.cluster.traced_classifier import classifier, directory, scripted
from tests.cluster.traced_service import CALLER
from tests.safety.scripted_model import Scripted

__all__ = ["classifier", "directory", "scripted"]


async def test_calls_that_share_a_batch_have_it_by_their_own_times(
    classifier: BatchingClassifier, scripted: Scripted
) -> None:
    with http_receiver() as received:
        replica = ClassifierReplica(CLASSIFIER, lambda _: classifier, TelemetryConfig(endpoint=received.endpoint))
        scripted.go.clear()
        first = asyncio.create_task(replica.classify(["a"]))  # not traced
        await scripted.computes()
        parents = [f"00-{number:032x}-{CALLER}-01" for number in (1, 2)]
        shared = [
            asyncio.create_task(replica.classify([text], trace={"traceparent": parent}))
            for text, parent in zip(("b c", "d"), parents, strict=True)
        ]
        await asyncio.sleep(0.05)  # they are queued
        scripted.go.set()
        await asyncio.gather(first, *shared)
        replica.__del__()
    assert scripted.batches == [["a"], ["d", "b", "c"]]
    assert len(received.spans) == 6
    for number, sequences in ((1, 2), (2, 1)):
        call, queue, batch = (
            next(
                span for span in received.spans if int.from_bytes(span.trace_id, "big") == number and span.name == name
            )
            for name in ("classify", "queue", "batch")
        )
        assert queue.parent_span_id == batch.parent_span_id == call.span_id
        assert queue.end_time_unix_nano - queue.start_time_unix_nano >= 0.04e9
        assert call.start_time_unix_nano <= queue.start_time_unix_nano
        assert queue.end_time_unix_nano == batch.start_time_unix_nano
        assert batch.end_time_unix_nano <= call.end_time_unix_nano
        assert attributes(batch.attributes) == {
            Attribute.BATCH_MODEL: "classifier",
            Attribute.BATCH_COUNT: 1,
            Attribute.BATCH_SEQUENCES: 3,
            Attribute.CALL_SEQUENCES: sequences,
        }


async def test_a_call_over_several_batches_says_how_many(scripted: Scripted) -> None:
    made = BatchingClassifier(scripted, max_batch_tokens=2, on_batches=note_batches)
    with http_receiver() as received:
        replica = ClassifierReplica(CLASSIFIER, lambda _: made, TelemetryConfig(endpoint=received.endpoint))
        await replica.classify(["a b c d e"], trace=SAMPLED)
        replica.__del__()
    made.close()
    found = attributes(received.named("batch").attributes)
    assert found[Attribute.BATCH_COUNT] == 3
    assert found[Attribute.BATCH_SEQUENCES] == 2
    assert found[Attribute.CALL_SEQUENCES] == 5


async def test_a_call_that_leaves_while_it_waits_has_no_batch(
    classifier: BatchingClassifier, scripted: Scripted
) -> None:
    with http_receiver() as received:
        replica = ClassifierReplica(CLASSIFIER, lambda _: classifier, TelemetryConfig(endpoint=received.endpoint))
        scripted.go.clear()
        first = asyncio.create_task(replica.classify(["a"]))
        await scripted.computes()
        leaving = asyncio.create_task(replica.classify(["b"], trace=SAMPLED))
        await asyncio.sleep(0.01)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        scripted.go.set()
        await first
        replica.__del__()
    assert {span.name for span in received.spans} == {"classify", "queue"}
    assert attributes(received.named("classify").attributes) == {Attribute.ERROR: "cancelled"}
