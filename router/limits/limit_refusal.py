"""The refusal of a request that exceeds a limit. Pure."""

from __future__ import annotations

from router.errors import LimitExceededError
from router.ports.limit_store import MONEY_UNITS, Charge, LimitDecision, LimitName, LimitUse

MAX_RETRY_S = 61.0
"""In seconds. Above this wait, the response asks the client library not to retry. It is the longest for a limit of a
minute, in which a use counts for 61 s at most (``periods``)."""

WORDS = {
    LimitName.REQUESTS_PER_MINUTE: "requests per minute",
    LimitName.TOKENS_PER_MINUTE: "tokens per minute",
    LimitName.CONCURRENT_REQUESTS: "concurrent requests",
    LimitName.TOKENS_PER_DAY: "tokens per day",
    LimitName.MONEY_PER_MONTH: "money per month",
}


def refusal(decision: LimitDecision, charge: Charge) -> LimitExceededError:
    """Returns the error for a decision that refuses a request with ``charge``.

    It names the limit that the request has to wait for longest. A budget of money has OpenAI's code
    ``insufficient_quota``, all others ``rate_limit_exceeded``.
    """
    longest = max(decision.refused, key=lambda use: float("inf") if use.wait_ms is None else use.wait_ms)
    wait_s = None if longest.wait_ms is None else longest.wait_ms / 1000
    whose = "this tenant" if longest.scope == "tenant" else "this API key"
    advice = "It needs more than the whole limit." if wait_s is None else f"Please try again in {duration(wait_s)}."
    message = f"Rate limit reached for {whose} on {WORDS[longest.name]}: {_figures(longest, charge)}. {advice}"
    code = "insufficient_quota" if longest.name is LimitName.MONEY_PER_MONTH else "rate_limit_exceeded"
    should_retry = wait_s is not None and wait_s <= MAX_RETRY_S
    return LimitExceededError(message, code, decision, wait_s, should_retry=should_retry)


def duration(seconds: float) -> str:
    """Returns seconds as people read them: ``1.2 s``, ``5 min``, ``3 h``."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def _figures(use: LimitUse, charge: Charge) -> str:
    """Returns limit, use and request in the limit's own unit."""
    match use.name:
        case LimitName.MONEY_PER_MONTH:
            limit, used, asked = (f"{each / MONEY_UNITS:.6g}" for each in (use.limit, use.used, charge.money))
        case LimitName.TOKENS_PER_MINUTE | LimitName.TOKENS_PER_DAY:
            limit, used, asked = (str(each) for each in (use.limit, use.used, charge.tokens))
        case _:
            limit, used, asked = str(use.limit), str(use.used), "1"
    return f"limit {limit}, used {used}, requested {asked}"
