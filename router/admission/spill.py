"""Where a request may go that its tier would refuse: which tiers, nearest first. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from router.config.tenants import Spill


def narrowed(allowed: Spill, asked: Spill | None) -> Spill:
    """Returns the directions in which a request may spill: those that it asks for in ``asked`` (None: any) and that its
    tenant is ``allowed``."""
    if asked is None or asked == allowed or allowed == "none":
        return allowed
    if allowed == "any":
        return asked
    return allowed if asked == "any" else "none"


def allowed_spill(tenant: Spill | None, key: Spill | None, common: Spill, *, only_narrows: bool = False) -> Spill:
    """Returns the directions in which requests with a key or token may spill: those of the ``key``, as far as its
    tenant's settings allow them. None of either: it says nothing. ``common`` is what counts if neither does.
    ``only_narrows``: a token, which narrows ``common`` too."""
    if tenant is None and not only_narrows:
        return common if key is None else key
    return narrowed(common if tenant is None else tenant, key)


def spill_targets(tier: str, order: Sequence[str], spill: Spill) -> list[str]:
    """Returns the tiers that may take a request instead of ``tier``, nearest first, stronger ones before weaker.

    ``order`` are the tiers that the request may use, weakest first. A request that may not use ``tier`` has no other
    tier.
    """
    if tier not in order:
        return []
    place = order.index(tier)
    up = list(order[place + 1 :]) if spill in ("up", "any") else []
    down = list(reversed(order[:place])) if spill in ("down", "any") else []
    return up + down
