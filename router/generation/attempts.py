"""The attempts at one engine request: another replica continues it after a failure, as ``retry_policy`` decides.

What was sent stays sent: the next attempt continues it from the tokens (``sent_answer``), and the client sees a pause.
The choices of a request that was cut are continued one by one, each with attempts of its own.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol, TypeVar

from engine.api import Delta, GenerationRequest, RequestError, Usage
from router.aborted_prompts import AbortedPrompts
from router.config.failover import FailoverConfig
from router.generation.joined_choices import JoinedChoices
from router.generation.merge_generators import merge
from router.generation.retry_policy import (
    Attempt,
    GiveUp,
    is_fruitless,
    next_attempt,
    overload_with_shortest_wait,
)
from router.generation.sent_answer import Continuation, SentAnswer, continuations
from router.generation.suspect_requests import SuspectRequests, Turn
from router.ports.tier_backend import (
    BackendError,
    OnPlaced,
    PoisonRequestError,
    ReplicaDrainedError,
    ReplicaError,
    ReplicaLostError,
    TierBackend,
    TierUnavailableError,
)
from router.usage_meter import AttemptMeter

logger = logging.getLogger(__name__)

T = TypeVar("T")

SETTLE_S = 0.003
"""Seconds after a failure until the next attempt, in which all requests of a lost replica have noticed it."""
MIN_PAUSE_S = 0.25
"""Between looks for a replica that can continue an answer, if the backend does not wait for one itself."""


class NewMeter(Protocol):
    """A function that makes the meter of one attempt; see ``UsageMeter.attempt`` for its arguments."""

    def __call__(self, *, seen: int = 0, shared: bool = False) -> AttemptMeter: ...


OnFailover = Callable[[str, bool], None]
"""Called with the kind of a failover when another replica goes on with a request. ``resumed``: it goes on from what was
sent; ``restarted``: nothing was sent; ``moved``: the replica was stopped as planned; ``other_version``: no replica has
the version of the model that began; ``poison``: the request was given up with PoisonRequestError. True: the replica has
another version of the model."""


@dataclass(slots=True)
class Run:
    """The state of one engine request over all its attempts. ``account`` and ``on_placed`` are as in
    ``TierBackend.generate``, ``shared`` as in ``UsageMeter.attempt``. ``lost_at`` is the time at which the last replica
    was lost, ``refused_at`` that since which the request has found no replica or only full ones, in seconds of the
    monotonic clock. ``admitted``, ``had_replicas`` and ``begun`` are as in ``run_attempts``."""

    backend: TierBackend
    tier: str
    config: FailoverConfig
    new_meter: NewMeter
    on_failover: OnFailover
    suspects: SuspectRequests
    account: str = ""
    shared: bool = False
    on_placed: OnPlaced | None = None
    failures: list[ReplicaError] = field(default_factory=list)
    fruitful: set[int] = field(default_factory=set)  # indices of failures, as in ``next_attempt``
    alone: set[int] = field(default_factory=set)  # the same
    version: str = ""  # of the model that has sent what was sent; "": unknown, or any may continue it
    lost_at: float = 0.0
    refused_at: float = 0.0
    admitted: bool = False
    had_replicas: bool = False
    begun: Callable[[], bool] = lambda: False

    @property
    def promised(self) -> bool:
        """Whether the request must not be refused any more."""
        return self.admitted or self.begun()

    @property
    def was_counted(self) -> bool:
        """Whether an engine that lives, or has reported what it counted, has taken the request, and with it the number
        of refusals. A replica that was lost before it sent anything has most likely reported nothing."""
        return any(
            place in self.fruitful or isinstance(failure, ReplicaDrainedError)
            for place, failure in enumerate(self.failures)
        )

    @property
    def waited_s(self) -> float:
        """The seconds since the last replica was lost; if none was, since the request has waited for one."""
        return time.monotonic() - (self.lost_at or self.refused_at)

    @property
    def on_probation(self) -> bool:
        """Whether the request may have killed the last replica: it got nothing there, or few others were there."""
        last = len(self.failures) - 1
        if last < 0 or not is_fruitless(self.failures[last], fruitful=False):
            return False
        return last not in self.fruitful or self.suspects.are_few(self.failures[last].replica_id)

    def failed(self, error: ReplicaError, got_something: bool, in_turn: bool) -> None:
        """Records ``error``, with which an attempt ended. For a lost or drained replica also records the time and the
        version of its model. ``got_something``: the attempt had got deltas before; ``in_turn``: it ended in its turn.
        """
        if got_something:
            self.fruitful.add(len(self.failures))
        if in_turn and time.monotonic() - self.lost_at >= self.suspects.apart_s:
            self.alone.add(len(self.failures))
        if is_fruitless(error, fruitful=False):
            self.suspects.lost(error.replica_id)
        if isinstance(error, ReplicaLostError | ReplicaDrainedError):
            self.lost_at = time.monotonic()
            self.version = error.version or self.version
        self.refused_at = self.refused_at or time.monotonic()
        self.failures.append(error)


def run_attempts(
    backend: TierBackend,
    tier: str,
    request: GenerationRequest,
    config: FailoverConfig,
    events_of: Callable[[Sequence[Delta]], Sequence[T]],
    new_meter: NewMeter,
    on_failover: OnFailover,
    account: str = "",
    suspects: SuspectRequests | None = None,
    *,
    admitted: bool = False,
    had_replicas: bool = True,
    begun: Callable[[], bool] = lambda: False,
    on_placed: OnPlaced | None = None,
) -> AsyncGenerator[Sequence[T], None]:
    """Returns a generator that runs ``request``, which has one prompt, in one attempt or several, and yields its events
    in batches. The request must have a seed if it samples.

    ``events_of`` turns the deltas of the engine into events. It is applied here because a further generator between the
    replica and the client would cost time per token. ``new_meter`` makes the meter of each attempt. ``account`` is as
    in ``TierBackend.generate``. ``suspects`` is the queue that all requests to the tier share; None: the request has
    one of its own. ``admitted``: the router has admitted the request, which then waits for a replica, or for full ones,
    as an answer does that has begun. ``had_replicas``: the tier had a ready one when the request came, so that the
    admission has judged whether there is time for it. ``begun`` returns whether an answer to another prompt of the
    client's request has begun, which waits in the same way. ``on_placed`` is called for each attempt. Closing the
    generator aborts the current attempt.

    The generator raises RequestError and any BackendError that the backend raises. After several failures it raises the
    one that ``next_attempt`` chooses, or PoisonRequestError.
    """
    suspects = suspects or SuspectRequests()
    run = Run(
        backend,
        tier,
        config,
        new_meter,
        on_failover,
        suspects,
        account,
        on_placed=on_placed,
        admitted=admitted,
        had_replicas=had_replicas,
        begun=begun,
    )
    return _attempts(run, request, events_of)


async def _attempts(
    run: Run, request: GenerationRequest, events_of: Callable[[Sequence[Delta]], Sequence[T]]
) -> AsyncGenerator[Sequence[T], None]:
    plan, paused, began_at = Attempt(frozenset()), bool(run.failures), time.monotonic()
    while True:
        sent, meter = SentAnswer(request.sampling.choices), run.new_meter(seen=len(request.resume), shared=run.shared)
        asked_at = time.monotonic()
        attempt = _numbered(run, request).after(asked_at - began_at)
        try:
            source, turn = _started(run, request, attempt, plan, meter)
            async with aclosing(source) as batches:
                async for deltas in batches:
                    if paused:
                        _log_pause(run, attempt)
                        paused = False
                    meter.seen += sent.push(deltas)
                    if (usage := deltas[-1].usage) is not None:
                        meter.report(usage)
                    if events := events_of(deltas):
                        yield events
            meter.report(None)  # no effect after a last delta, which has the counts
            return
        except RequestError as error:
            meter.report(None if request.resume else Usage(0, 0, 0))  # no engine took the request
            if request.resume and run.failures:
                raise run.failures[-1] from error  # the request is not at fault: another engine has begun its answer
            raise
        except TierUnavailableError:
            run.refused_at = run.refused_at or asked_at
            if not sent.began and _waits(run, request):
                meter.supersede()
                plan = replace(plan, avoid=frozenset())
                await asyncio.sleep(MIN_PAUSE_S)
                continue
            meter.report(None if request.resume else Usage(0, 0, 0))
            # No replica is left beside those that refused the request as full: tell the client that the tier is full.
            overload = overload_with_shortest_wait(run.failures)
            if overload is None or request.resume or run.promised:
                raise
            raise overload from None
        except ReplicaError as error:
            run.failed(error, sent.began, in_turn=turn is not None and turn.broken)
        decision = _decide(run, bool(request.resume) or sent.began or run.promised)
        if isinstance(decision, GiveUp):
            _give_up(run, attempt, meter, decision.error)
            raise decision.error
        request, rest = _continued(run, request, sent, decision)
        if not rest:
            meter.report(None)
            raise run.failures[-1]
        plan, paused = decision, True
        meter.supersede()
        _report(run, sent.began or bool(request.resume), plan.any_version)
        await asyncio.sleep(plan.after_s or SETTLE_S)
        if rest[0].choice is not None:
            break
        request = rest[0].request
    async with aclosing(_choices(run, request, rest, sent.ended_tokens, events_of)) as choices:
        async for events in choices:
            yield events


def _started(
    run: Run, request: GenerationRequest, attempt: GenerationRequest, plan: Attempt, meter: AttemptMeter
) -> tuple[AsyncGenerator[Sequence[Delta], None], Turn | None]:
    """Returns the deltas of ``attempt`` at ``request``, and the turn in which it begins, if it has to wait for one."""
    source = run.backend.generate(run.tier, attempt, plan.avoid, meter.report, run.account, run.on_placed)
    if not run.on_probation:
        return source, None
    turn = run.suspects.turn(partial(_a_replica, run, request))
    return _in_turn(turn, source), turn


def _give_up(run: Run, attempt: GenerationRequest, meter: AttemptMeter, error: BackendError) -> None:
    """Settles the counts of the last ``attempt``, and reports a request that may kill replicas."""
    taken = meter.seen or isinstance(run.failures[-1], ReplicaLostError | ReplicaDrainedError)
    meter.report(None if taken else Usage(0, 0, 0))
    if isinstance(error, PoisonRequestError):
        logger.error("request %s is given up: lost were %s", attempt.request_id, ", ".join(error.replica_ids))
        run.on_failover("poison", False)


def _numbered(run: Run, request: GenerationRequest) -> GenerationRequest:
    """Returns ``request`` as its next attempt sends it. Every attempt has its own request id, so that late deltas of a
    failed one are not taken for the next one's."""
    tried = len(run.failures)
    if not tried:
        return request
    attempt = replace(request, request_id=f"{request.request_id}-{tried}", attempt=tried)
    return replace(attempt, refused_before=()) if run.was_counted else attempt


def _continued(
    run: Run, request: GenerationRequest, sent: SentAnswer, decision: Attempt
) -> tuple[GenerationRequest, Sequence[Continuation]]:
    """Returns ``request`` as further attempts take it, and the requests for what is left after what was ``sent``."""
    version = "" if decision.any_version else run.version
    # Also a choice that has sent nothing names the version that the others have begun with, until any may go on.
    if request.resume or decision.any_version:
        request = replace(request, model_version=version)
    return request, continuations(request, sent, version)


async def _choices(
    run: Run,
    request: GenerationRequest,
    rest: Sequence[Continuation],
    ended_tokens: int,
    events_of: Callable[[Sequence[Delta]], Sequence[T]],
) -> AsyncGenerator[Sequence[T], None]:
    """Runs each request of ``rest``, which continues one choice of ``request``, in attempts of its own, and yields
    their events as those of one request. ``ended_tokens`` are those of the choices that have ended."""
    run.new_meter(seen=ended_tokens, shared=True).report(Usage(0, ended_tokens, 0))
    joined = JoinedChoices(events_of, [each.choice or 0 for each in rest], ended_tokens)
    streams = [
        _attempts(
            replace(
                run,
                failures=list(run.failures),
                fruitful=set(run.fruitful),
                alone=set(run.alone),
                shared=place > 0,
                begun=lambda: True,
            ),
            replace(each.request, request_id=f"{request.request_id}.{each.choice}"),
            joined.taker(each.choice or 0),
        )
        for place, each in enumerate(rest)
    ]
    async with aclosing(merge(streams, AbortedPrompts())) as merged:
        async for events in merged:
            yield events


async def _in_turn(turn: Turn, source: AsyncGenerator[Sequence[Delta], None]) -> AsyncGenerator[Sequence[Delta], None]:
    """Yields the deltas of an attempt that begins in its turn."""
    async with aclosing(source), turn:
        async for deltas in source:
            turn.end()
            yield deltas


async def _a_replica(run: Run, request: GenerationRequest) -> None:
    """Returns when the tier has a ready replica, or when ``request`` waits for none any more."""
    while not ready_replicas(run.backend, run.tier) and _waits(run, request):  # noqa: ASYNC110 - the port has no event
        await asyncio.sleep(MIN_PAUSE_S)


def _waits(run: Run, request: GenerationRequest) -> bool:
    """Returns whether ``request`` waits on for a replica of its tier, which has none. An answer that has begun does,
    for ``config.wait_s``, and so does a request that the router has admitted. One that has come to a tier without
    replicas has waited for a first one by now: the admission lets all of them pass, and they could be many."""
    admitted = run.admitted and (run.had_replicas or bool(run.failures))
    owed = bool(request.resume) or run.begun() or admitted
    return owed and run.waited_s < run.config.wait_s


def _decide(run: Run, began: bool) -> Attempt | GiveUp:
    """Returns what to do after the failures of ``run``."""
    ready = ready_replicas(run.backend, run.tier)
    return next_attempt(run.failures, began, ready, run.config, run.waited_s, run.fruitful, run.alone)


def ready_replicas(backend: TierBackend, tier: str) -> frozenset[str]:
    """Returns the ids of the tier's ready replicas, with the warm ones, which take what the others refuse."""
    found = (snapshot.replicas | snapshot.warm for snapshot in backend.snapshot() if snapshot.name == tier)
    return next(found, frozenset())


def _report(run: Run, began: bool, other_version: bool) -> None:
    """Reports that another replica is to go on with the request. Refusals are no failovers."""
    match run.failures[-1]:
        case ReplicaDrainedError():
            run.on_failover("moved", False)
        case ReplicaLostError():
            run.on_failover("resumed" if began else "restarted", False)
        case _ if other_version:
            run.on_failover("other_version", True)


def _log_pause(run: Run, attempt: GenerationRequest) -> None:
    """Logs that another replica goes on with a request that a replica was lost with."""
    if run.lost_at:
        logger.warning(
            "request %s goes on after %d tokens and a pause of %.0f ms; failed: %s",
            attempt.request_id,
            len(attempt.resume),
            1000 * run.waited_s,
            ", ".join(f"{failure.replica_id} ({type(failure).__name__})" for failure in run.failures[-4:]),
        )
