"""What the trace of a request says of it: numbers and names that are known, and nothing of its texts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

from router.cache.found_answer import Found
from router.inference_request import Call
from router.ledger.ledger import Account
from router.ledger.ledger_entry import MAX_VERDICTS, decision_of
from router.ports.trace_names import Attribute, EventName
from router.ports.tracer import Trace, Value
from router.usage_meter import MeteredUsage
from safety.api import Stage, Verdict

PROVIDER = "manta"
UNSCANNED = "unscanned"
"""``error.type`` of a verdict whose check has failed, or took too long."""
OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
    "/v1/moderations": "moderation",  # the conventions have no name for it
}


def routed(call: Call, model: str, tier: str) -> Mapping[Attribute, Value | None]:
    """Returns the attributes of a request's span that are known once its model is: a name of the service by then, which
    the client has not made up."""
    return {
        Attribute.OPERATION: OPERATIONS.get(call.endpoint, "generate_content"),
        Attribute.PROVIDER: PROVIDER,
        Attribute.REQUEST_MODEL: model,
        Attribute.REQUEST_ID: call.request_id,
        Attribute.TIER: tier,
    }


def identified(account: Account) -> Mapping[Attribute, Value | None]:
    """Returns the attributes that the span of any request in the ledger has: tier, model and request id."""
    known = routed(account.call, account.request.model, account.tier)
    return {**known, Attribute.RESPONSE_MODEL: account.model}


def accepted(account: Account, reason: str) -> Mapping[Attribute, Value | None]:
    """Returns the attributes of a request's span that are known once it has its place in a tier. ``reason`` says why
    that one, as in ``Route``. None: the request has no such attribute."""
    request = account.request
    return {
        Attribute.TIER: account.tier,
        Attribute.RESPONSE_MODEL: account.model,
        Attribute.REQUEST_STREAM: request.stream,
        Attribute.REQUEST_MAX_TOKENS: request.sampling.max_tokens,
        Attribute.REQUEST_CHOICES: request.sampling.n,
        Attribute.PRIORITY: request.priority.name.lower(),
        Attribute.ROUTE_REASON: reason,
    }


def answered(account: Account, used: MeteredUsage) -> Mapping[Attribute, Value | None]:
    """Returns the attributes of a request's span that are known at its end: tokens, time to first chunk in seconds, and
    the error if it has failed. None: the request has no such attribute."""
    first = account.first_event_at
    return {
        Attribute.TIME_TO_FIRST_CHUNK: None if first is None else first - account.started_at,
        Attribute.INPUT_TOKENS: used.usage.prompt_tokens,
        Attribute.OUTPUT_TOKENS: used.usage.completion_tokens,
        Attribute.CACHED_TOKENS: used.usage.cached_tokens,
        Attribute.CACHE: account.cache,
        Attribute.SAFETY: None if account.ruling is None else decision_of(account.ruling, account.inspections),
        Attribute.FAILOVERS: account.meter.failovers,
        Attribute.ERROR: None if account.fault is None else account.fault.code or account.fault.kind.value,
    }


def note_look_up(trace: Trace, found: Found) -> None:
    """Adds what the answer cache had for a request to its trace."""
    trace.event(EventName.CACHE, partial(_of_look_up, found))


def note_verdicts(trace: Trace, verdicts: Iterable[Verdict], stage: Stage, policy: str) -> None:
    """Adds the MAX_VERDICTS most severe verdicts of one ruling of the guard to the trace of a request. ``policy`` is
    the version of the policy."""
    severest = sorted(verdicts, key=lambda verdict: -verdict.action.severity)[:MAX_VERDICTS]
    for verdict in severest:
        trace.event(EventName.VERDICT, partial(_of_verdict, verdict, stage, policy), verdict.action.severity)


def _of_look_up(found: Found) -> Mapping[Attribute, Value | None]:
    hit = found.hit
    return {
        Attribute.CACHE: found.status.value,
        Attribute.CACHE_REASON: found.reason or None,
        Attribute.CACHE_AGE_S: None if hit is None else found.age_s,
        Attribute.CACHE_SCORE: None if hit is None or hit.match is None else hit.match.score,
    }


def _of_verdict(verdict: Verdict, stage: Stage, policy: str) -> Mapping[Attribute, Value | None]:
    """Never its spans, nor its error, whose words are not ours."""
    return {
        Attribute.STAGE: stage.value,
        Attribute.ACTION: verdict.action.value,
        Attribute.CATEGORY: verdict.category or None,
        Attribute.CHECK: verdict.check,
        Attribute.CHECK_VERSION: verdict.version,
        Attribute.POLICY_VERSION: policy,
        Attribute.ERROR: None if verdict.error is None else UNSCANNED,
    }
