"""The entries of requests whose router was killed: another router writes them, with the counts of the replicas. Pure.

Each attempt carries a draft of its request's entry to its replica. If the router dies, the replica reports the draft
with the engine's counts to another router, for each attempt by itself. So the entry of a request comes in parts, one
for each prompt: attempts at the same prompt count the same tokens, since the later ones continue the answer of the
earlier ones, and only the first report is added. Such an entry lacks the reasoning tokens, and the tokens that were
lost with another replica.
"""

from __future__ import annotations

import json
import logging
from dataclasses import replace

from pydantic import ValidationError

from router.config.prices import PriceConfig
from router.ledger.ledger_entry import ENTRY_FIELDS, SAFETY_FIELDS, Outcome, RequestEntry, SafetyEntry
from router.ledger.price import cost_of
from router.ports.ledger_store import LedgerEntry
from router.ports.tier_backend import OrphanedAttempt

ROUTER_LOST = "router_lost"
"""The error of an entry whose router was killed."""

logger = logging.getLogger(__name__)


def draft_of(entry: RequestEntry) -> str:
    """Returns ``entry``, which has no token counts yet, as a JSON draft."""
    return json.dumps(entry.members, separators=(",", ":"))


def entry_of(orphan: OrphanedAttempt, now: float) -> LedgerEntry | None:
    """Returns the part of a request's entry for the attempt ``orphan``. ``now`` is the time of its end, in seconds
    since the epoch.

    Logs a draft that cannot be read, and returns None. Members that another release has added are ignored.
    """
    try:
        members = json.loads(orphan.account)
        safety = {name: value for name, value in members["safety"].items() if name in SAFETY_FIELDS}
        read = {name: members[name] for name in ENTRY_FIELDS if name in members}
        draft = RequestEntry(**{**read, "safety": SafetyEntry(**safety)})
        prices = PriceConfig(**dict(zip(("input", "cached_input", "output"), draft.price, strict=True)))
    except (ValueError, TypeError, KeyError, AttributeError, ValidationError) as error:
        logger.error("the draft of request %s cannot be read: %s", orphan.request_id, type(error).__name__)
        return None
    usage = orphan.usage
    entry = replace(
        draft,
        input_tokens=usage.prompt_tokens,
        cached_input_tokens=usage.cached_tokens,
        output_tokens=usage.completion_tokens,
        cost=cost_of(prices, usage),
        outcome=Outcome.FAILED,
        ended_at=now,
    )
    return entry.stored(part_of(orphan.request_id))


def part_of(request_id: str) -> str:
    """Returns the id of the part of an entry to which an attempt belongs: the id of the first attempt at the same
    prompt. ``request_id`` is the attempt's engine request.

    The id of an engine request is ``account-prompt``: the id of its account and the number of its prompt. It may be
    followed by ``.run``, the number of a retry, by ``.choice``, the choice that the attempt continues, and by
    ``-attempt``, the number of the attempt.
    """
    account, _, rest = request_id.partition("-")
    prompt = rest.partition("-")[0].partition(".")[0]
    return f"{account}-{prompt}" if prompt else request_id
