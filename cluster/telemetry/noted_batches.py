"""``note_batches``: gives what a batch runner did for a call to the tracer of the call, by a context variable.

Runners and tracers do not know each other: a look-up of the semantic cache has the embedder's batches in its trace
where both are in one process. Without a trace a note costs one look at the variable.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from safety.encoder.batch_runner import BatchFacts

_NOTED: ContextVar[list[BatchFacts] | None] = ContextVar("manta_noted_batches", default=None)


@contextmanager
def noted_batches() -> Iterator[list[BatchFacts]]:
    """Returns the list to which the batches of calls within the context are added."""
    noted: list[BatchFacts] = []
    token = _NOTED.set(noted)
    try:
        yield noted
    finally:
        _NOTED.reset(token)


def note_batches(facts: BatchFacts) -> None:
    """Notes ``facts`` for the current call, if it is traced. Implements ``OnBatches``."""
    noted = _NOTED.get()
    if noted is not None:
        noted.append(facts)
