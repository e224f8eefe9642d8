"""The attempts at one engine request: it is sent to another replica after a failure, as ``retry_policy`` decides."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TypeVar

from engine.api import Delta, GenerationRequest, RequestError, Usage
from router.generation.retry_policy import Attempt, GiveUp, next_attempt, overload_with_shortest_wait
from router.ports.tier_backend import ReplicaError, ReplicaLostError, TierBackend, TierUnavailableError
from router.usage_meter import AttemptMeter

T = TypeVar("T")


async def run_attempts(
    backend: TierBackend,
    tier: str,
    request: GenerationRequest,
    max_lost: int,
    events_of: Callable[[Sequence[Delta]], Sequence[T]],
    new_meter: Callable[[], AttemptMeter],
    account: str = "",
) -> AsyncGenerator[Sequence[T], None]:
    """Runs ``request``, which is for one prompt, in one attempt or several. Yields its events in batches.

    ``events_of`` turns the deltas of the engine into events. It is applied here because a further generator between the
    replica and the client would cost time per token. ``new_meter`` makes the meter of each attempt. ``max_lost`` is the
    setting ``router.max_lost_replicas``. ``account`` is as in ``TierBackend.generate``. Closing the generator aborts
    the current attempt.

    Raises what the backend raises. After several failures it raises the one that ``next_attempt`` chooses.
    """
    failures: list[ReplicaError] = []
    plan = Attempt(frozenset())
    sent = 0
    while True:
        # Every attempt has its own request id, so that late deltas of a failed one are not taken for the next one's.
        attempt = replace(request, request_id=f"{request.request_id}-{len(failures)}") if failures else request
        meter = new_meter()
        try:
            async with aclosing(backend.generate(tier, attempt, plan.avoid, meter.report, account)) as batches:
                async for deltas in batches:
                    sent += len(deltas)
                    meter.push(deltas)
                    if events := events_of(deltas):
                        yield events
            meter.report(None)  # no effect after a last delta, which has the counts
            return
        except (RequestError, TierUnavailableError) as error:
            meter.report(Usage(0, 0, 0))  # no engine took the request
            if isinstance(error, RequestError):
                raise
            # No replica is left beside those that refused the request as full: tell the client that the tier is full.
            if (overload := overload_with_shortest_wait(failures)) is not None:
                raise overload from None
            raise
        except ReplicaError as error:
            refused = not isinstance(error, ReplicaLostError) and meter.seen == 0
            meter.report(Usage(0, 0, 0) if refused else None)
            failures.append(error)
        decision = next_attempt(failures, sent, _ready(backend, tier), max_lost)
        if isinstance(decision, GiveUp):
            raise decision.error
        plan = decision


def _ready(backend: TierBackend, tier: str) -> frozenset[str]:
    """Returns the ids of the tier's ready replicas."""
    return next((snapshot.replicas for snapshot in backend.snapshot() if snapshot.name == tier), frozenset())
