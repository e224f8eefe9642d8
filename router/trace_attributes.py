"""What the trace of a request says of it: numbers and names that are known, and nothing of its texts."""

from __future__ import annotations

from collections.abc import Mapping

from router.ledger.ledger import Account
from router.ports.trace_names import Attribute
from router.ports.tracer import Value
from router.usage_meter import MeteredUsage

PROVIDER = "manta"
OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
    "/v1/moderations": "moderation",  # the conventions have no name for it
}


def identified(account: Account) -> Mapping[Attribute, Value | None]:
    """Returns the attributes that the span of any request in the ledger has: tenant, tier, model and request id. None:
    the request has no such attribute."""
    return {
        Attribute.OPERATION: OPERATIONS.get(account.call.endpoint, "generate_content"),
        Attribute.PROVIDER: PROVIDER,
        Attribute.REQUEST_MODEL: account.request.model,
        Attribute.RESPONSE_MODEL: account.model,
        Attribute.REQUEST_ID: account.call.request_id,
        Attribute.TENANT: account.principal.tenant,
        Attribute.TIER: account.tier,
    }


def accepted(account: Account, reason: str) -> Mapping[Attribute, Value | None]:
    """Returns the attributes of a request's span that are known once its tier is chosen. ``reason`` says why that one,
    as in ``Route``. None: the request has no such attribute."""
    request = account.request
    return {
        **identified(account),
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
        Attribute.SAFETY: None if account.ruling is None else account.ruling.label,
        Attribute.FAILOVERS: account.meter.failovers,
        Attribute.ERROR: None if account.fault is None else account.fault.code or account.fault.kind.value,
    }
