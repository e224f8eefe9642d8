"""One sequence, over as many attempts as ``router.generation.retry_policy`` allows."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TypeVar

from engine.api import Delta, GenerationRequest
from router.generation.retry_policy import Attempt, GiveUp, mildest_overload, next_attempt
from router.ports.tier_backend import ReplicaError, TierBackend, TierUnavailableError

T = TypeVar("T")


async def run_attempts(
    backend: TierBackend,
    tier: str,
    request: GenerationRequest,
    max_lost: int,
    events_of: Callable[[Sequence[Delta]], Sequence[T]],
) -> AsyncGenerator[Sequence[T], None]:
    """Yields the events of what the attempts yield. Closing it aborts the attempt under way.

    ``events_of`` is applied here because each more generator between a replica and the client costs time per token.

    Raises what the backend raises; of several failures the one that ``next_attempt`` chooses.
    """
    failures: list[ReplicaError] = []
    plan = Attempt(frozenset())
    sent = 0
    while True:
        # What a lost attempt left behind must not be taken for the next one's: each has an id of its own.
        attempt = replace(request, request_id=f"{request.request_id}-{len(failures)}") if failures else request
        try:
            async with aclosing(backend.generate(tier, attempt, plan.avoid)) as batches:
                async for deltas in batches:
                    sent += len(deltas)
                    if events := events_of(deltas):
                        yield events
            return
        except TierUnavailableError:
            # The replicas that were not full have gone meanwhile: a full tier is what the client should know of.
            if (overload := mildest_overload(failures)) is not None:
                raise overload from None
            raise
        except ReplicaError as error:
            failures.append(error)
        decision = next_attempt(failures, sent, _ready(backend, tier), max_lost)
        if isinstance(decision, GiveUp):
            raise decision.error
        plan = decision


def _ready(backend: TierBackend, tier: str) -> frozenset[str]:
    """Ids of the tier's ready replicas."""
    return next((snapshot.replicas for snapshot in backend.snapshot() if snapshot.name == tier), frozenset())
