"""``generate``: sends each prompt of a request to the engine and merges the output into one stream of answer events."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial

from engine.api import GenerationRequest, Prompt, RequestError, SamplingParams, Usage
from router.aborted_prompts import AbortedPrompts
from router.answer_events import AnswerEvent, Finished
from router.config.failover import FailoverConfig
from router.errors import InternalServerError, refusal_of
from router.generation.answer_event_builder import AnswerEventBuilder
from router.generation.attempts import OnFailover, ready_replicas, run_attempts
from router.generation.call_once_before import CallOnceBefore
from router.generation.merge_generators import merge
from router.generation.suspect_requests import SuspectRequests
from router.inference_request import InferenceRequest
from router.ports.tier_backend import TierBackend
from router.usage_meter import MAX_CLIENT_WAIT_S, AttemptMeter, UsageMeter

RESTARTED = "r"
"""Ends the run of answers that are begun anew: an engine may still know the requests that were aborted."""

OnPromptPlaced = Callable[[int, str, int], None]
"""Takes the index of a prompt, and what ``OnPlaced`` takes of its attempt."""


@dataclass(frozen=True, slots=True)
class Generation:
    """What the generation of the answers to one request needs.

    ``failover`` has the settings ``router.failover``. ``meter`` counts the tokens; ``prompt_tokens`` estimates those of
    a prompt, for attempts whose counts are lost. ``account_id`` is the id of the ledger entry, ``run`` tells several
    runs under it apart, and ``account`` is as in ``TierBackend.generate``. ``restarted``: the same run was begun before
    and aborted. ``aborts`` aborts the work for single prompts: their answers then have no Ended event, and the usage
    counts the tokens that were generated for them. ``count_failover`` is called with the kind of each failover;
    ``OnFailover`` lists the kinds. ``trace_context`` is the W3C traceparent of the replicas' parent span,
    ``trace_state`` the tracestate that goes with it. ``suspects`` is the queue that all requests to the tier share;
    None: the request has one of its own. ``on_first_token`` is called once, when the first deltas have come; None: the
    request was not admitted by the router, and a replica may refuse it. ``on_placed`` is called for each attempt at
    each prompt.
    """

    backend: TierBackend
    tier: str
    request: InferenceRequest
    tenant: str
    failover: FailoverConfig
    meter: UsageMeter
    prompt_tokens: Callable[[Prompt], int]
    account_id: str
    account: str
    aborts: AbortedPrompts = field(default_factory=AbortedPrompts)
    count_failover: Callable[[str], None] = lambda kind: None
    trace_context: str = ""
    run: str = ""
    restarted: bool = False
    suspects: SuspectRequests | None = None
    on_first_token: Callable[[], None] | None = None
    on_placed: OnPromptPlaced = lambda _, __, ___: None
    trace_state: str = ""


async def generate(work: Generation) -> AsyncGenerator[Sequence[AnswerEvent], None]:
    """Yields the events of all answers to a request, in batches; the last event is Finished.

    The events of one answer are in order; those of different prompts and choices are interleaved. Closing the generator
    aborts the work in the engine.

    Raises the errors of ``run_attempts``, and a RefusalError if the generation for a prompt failed or ended without its
    last delta.
    """
    request, meter, aborts = work.request, work.meter, work.aborts
    builders = [
        AnswerEventBuilder(index, request.sampling, request.parsing, meter) for index in range(len(request.prompts))
    ]
    try:
        async with aclosing(merge(_streams(work, builders), aborts)) as merged:
            async for events in merged:
                yield events
    except RequestError as error:
        raise refusal_of(error, request.prompt_field) from None
    yield [Finished(await _usage(builders, aborts, meter))]


def _streams(
    work: Generation, builders: Sequence[AnswerEventBuilder]
) -> list[AsyncGenerator[Sequence[AnswerEvent], None]]:
    """Returns the events of each prompt's answers, as the ``builders`` make them of deltas."""
    on_failover = _recorder(work.meter, work.count_failover)
    run = f"{work.run}{RESTARTED}" if work.restarted else work.run
    requests = engine_requests(work.request, work.tenant, work.account_id, run, work.trace_context, work.trace_state)
    if work.restarted:  # an engine has counted its arrival
        requests = [replace(each, attempt=1) for each in requests]
    admitted = work.on_first_token is not None
    # Once for all prompts: it looks at all lanes.
    had_replicas = admitted and bool(ready_replicas(work.backend, work.tier))
    began = CallOnceBefore(work.on_first_token or (lambda: None))
    return [
        run_attempts(
            work.backend,
            work.tier,
            engine_request,
            work.failover,
            began.wrap(builder.push),
            partial(_new_attempt, work.meter, work.prompt_tokens, engine_request.prompt),
            on_failover,
            work.account,
            work.suspects,
            admitted=admitted,
            had_replicas=had_replicas,
            begun=lambda: began.called,
            on_placed=partial(work.on_placed, index),
        )
        for index, (builder, engine_request) in enumerate(zip(builders, requests, strict=True))
    ]


async def _usage(builders: Sequence[AnswerEventBuilder], aborts: AbortedPrompts, meter: UsageMeter) -> Usage:
    """Returns the usage of the whole request; that of aborted prompts is waited for. Raises InternalServerError if
    another prompt's answer has ended without its last delta."""
    usages = [builder.usage for builder in builders if builder.usage is not None]
    if any(builder.usage is None and prompt not in aborts.aborted for prompt, builder in enumerate(builders)):
        raise InternalServerError("The answer ended before it was complete.", "engine_error")
    if not aborts.aborted:
        return total_usage(usages)
    await meter.wait(MAX_CLIENT_WAIT_S)
    return meter.total.usage


def _new_attempt(
    meter: UsageMeter, prompt_tokens: Callable[[Prompt], int], prompt: Prompt, *, seen: int = 0, shared: bool = False
) -> AttemptMeter:
    """Returns the meter of a new attempt at ``prompt``."""
    return meter.attempt(prompt_tokens(prompt), seen, shared)


def _recorder(meter: UsageMeter, count: Callable[[str], None]) -> OnFailover:
    """Returns what counts failovers, for the client in ``meter`` and for operators by ``count``."""

    def record(kind: str, other_version: bool) -> None:
        meter.failovers += kind in ("resumed", "restarted", "moved")
        meter.other_version = meter.other_version or other_version
        count(kind)

    return record


def engine_requests(
    request: InferenceRequest,
    tenant: str,
    account_id: str,
    run: str,
    trace_context: str = "",
    trace_state: str = "",
) -> list[GenerationRequest]:
    """Returns one engine request for each prompt, in the order of the prompts. Requests share cached prefixes only
    within ``tenant``. All have ``trace_context`` and ``trace_state``.

    Their ids are derived from ``account_id`` and ``run``, which are unique together, because two clients may send the
    same request id. A request without a seed gets one here rather than in the engine, so that another engine can
    continue it.
    """
    return [
        GenerationRequest(
            engine_request_id(account_id, index, run),
            prompt,
            _seeded(request.sampling),
            cache_salt=tenant,
            tenant=tenant,
            priority=request.priority,
            deadline_s=request.deadline_s,
            ttft_slo_s=request.ttft_slo_s,
            refused_before=() if index else request.refused_before,
            surplus=request.surplus,
            trace_context=trace_context,
            trace_state=trace_state,
        )
        for index, prompt in enumerate(request.prompts)
    ]


def _seeded(sampling: SamplingParams) -> SamplingParams:
    """Returns ``sampling`` with a seed of its own, unless it has one."""
    return sampling if sampling.seed is not None else replace(sampling, seed=secrets.randbits(63))


def engine_request_id(account_id: str, index: int, run: str) -> str:
    """Returns the id of the engine request of the first attempt at the prompt with this index. ``run`` tells the ids of
    several runs of one account apart; "" for the first."""
    return f"{account_id}-{index}.{run}" if run else f"{account_id}-{index}"


def total_usage(usages: Sequence[Usage]) -> Usage:
    """Returns the sum of ``usages``."""
    return Usage(
        sum(usage.prompt_tokens for usage in usages),
        sum(usage.completion_tokens for usage in usages),
        sum(usage.cached_tokens for usage in usages),
    )
