"""Authorisation: the tiers that a principal may use. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from router.access.api_keys import Principal


def allowed_tiers(principal: Principal, tiers: Sequence[str]) -> list[str]:
    """Returns those of ``tiers`` that ``principal`` may use, in the same order."""
    return [tier for tier in tiers if principal.tiers is None or tier in principal.tiers]
