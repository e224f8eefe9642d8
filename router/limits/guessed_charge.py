"""The charge of a request that does not bound its answers. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from router.ports.limit_store import Charge, LimitName, Scope

TOKEN_LIMITS = (LimitName.TOKENS_PER_MINUTE, LimitName.TOKENS_PER_DAY)


def within_limits(guess: Charge, least: Charge, scopes: Sequence[Scope]) -> Charge:
    """Returns ``guess`` cut to what the limits of ``scopes`` allow in all, but not below ``least``, the charge of the
    prompts alone.

    The length of the answers is a guess, and a guess alone must not refuse a request for ever. What the answers use
    beyond it counts at the end.
    """
    limits = [each for scope in scopes for each in scope.limits]
    tokens = _smallest(limit for name, limit in limits if name in TOKEN_LIMITS)
    money = _smallest(limit for name, limit in limits if name is LimitName.MONEY_PER_MONTH)
    return Charge(_cut(guess.tokens, tokens, least.tokens), _cut(guess.money, money, least.money))


def _smallest(limits: Iterable[int]) -> int | None:
    return min(limits, default=None)


def _cut(guess: int, limit: int | None, least: int) -> int:
    return guess if limit is None else max(least, min(guess, limit))
