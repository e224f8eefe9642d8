"""Prices: the cost of tokens, in whole units of 1e-9 of the currency. Pure.

Money is whole numbers, so that sums are exact. A price per million tokens of 0.15 is 150 units per token.
"""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from math import lcm

from engine.api import Usage
from router.config.prices import PriceConfig
from router.ports.limit_store import MONEY_UNITS

TOKENS_PER_PRICE = 1_000_000
MAX_REMEMBERED = 1024
"""Prices that are turned into whole numbers once: each request needs its price four times."""


def cost_of(price: PriceConfig | None, usage: Usage) -> int:
    """Returns the cost of ``usage``, in units of 1e-9 of the currency (MONEY_UNITS of them are 1), rounded half up; 0
    without a price.

    ``usage.prompt_tokens`` includes the cached ones, which have a price of their own.
    """
    if price is None:
        return 0
    cached = min(usage.cached_tokens, usage.prompt_tokens)
    of_input, of_cached, of_output, parts = _units_per_token(price.per_million)
    total = (usage.prompt_tokens - cached) * of_input + cached * of_cached + usage.completion_tokens * of_output
    return (2 * total + parts) // (2 * parts)


@lru_cache(MAX_REMEMBERED)
def _units_per_token(per_million: tuple[float, ...]) -> tuple[int, ...]:
    """Returns the price of a token of each kind in MONEY_UNITS as whole numbers of equal parts, and then the parts in a
    unit. The prices are taken as they are written: 0.1 is a tenth."""
    exact = [Fraction(str(each)) * MONEY_UNITS / TOKENS_PER_PRICE for each in per_million]
    parts = lcm(*(each.denominator for each in exact))
    return (*(int(each * parts) for each in exact), parts)


def money(units: int) -> float:
    """Converts an amount in units of 1e-9 of the currency (MONEY_UNITS of them are 1) to the currency."""
    return float(Decimal(units) / MONEY_UNITS)
