"""``StageMetrics``: the port to the times of a request's stages, for Prometheus. They are of all requests, while traces
are of some.

A stage is named as its span (``SpanName``), and lasts from ``Trace.enter`` to that of the next stage:

* ACCESS until the body is read and parsed, so that a slow upload is in it.
* PROMPT until templates are in the request; once more, after the first ROUTE, until passages are, if it asks for them.
* ROUTE until the request has its place: the claim of its idempotency key and the wait at the admission are in it.
* LIMITS, SAFETY (checks of the request alone) and CACHE.
* ANSWER until the first events of the answer are there: queue, prefill and lanes. Of embeddings: until the vectors are.
* MODERATE until moderation releases the first text of a stream, if it holds it back. So the stages up to here add up to
  the time to the first token at the router.
* STREAM from there to the end of the answer, streamed or whole. The time that a slow client takes to read is in it, and
  what moderation holds back of later text.

In a trace ANSWER lasts to the end of the request, and MODERATE is within it as long as the answer.

The last stage of a request ends with it, whether it was answered, refused, cut off or cancelled.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Protocol

STREAM = "stream"
"""The last stage of an answer."""

Took = Callable[[str, float], None]
"""Takes the name of a stage that has ended, and its seconds."""


class Operation(StrEnum):
    """The kinds of requests whose stages are timed. A stage of one takes other times than that of another."""

    GENERATION = "generation"
    EMBEDDINGS = "embeddings"
    MODERATION = "moderation"


class StageMetrics(Protocol):
    """The times of the stages of one router."""

    def of(self, operation: Operation) -> Took:
        """Returns what counts a stage of a request of ``operation`` that has ended: the value of a ``SpanName``, or
        STREAM."""
        ...
