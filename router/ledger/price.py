"""Prices: the cost of tokens, in whole units of 1e-9 of the currency. Pure.

Money is whole numbers, so that sums are exact. A price per million tokens of 0.15 is 150 units per token.
"""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal

from engine.api import Usage
from router.config import PriceConfig
from router.ports.limit_store import MONEY_UNITS

TOKENS_PER_PRICE = 1_000_000


def cost_of(price: PriceConfig | None, usage: Usage) -> int:
    """Returns the cost of ``usage``, in units of 1e-9 of the currency (MONEY_UNITS of them are 1), rounded half up; 0
    without a price.

    ``usage.prompt_tokens`` includes the cached ones, which have a price of their own.
    """
    if price is None:
        return 0
    cached = min(usage.cached_tokens, usage.prompt_tokens)
    counts = (usage.prompt_tokens - cached, cached, usage.completion_tokens)
    prices = (Decimal(str(each)) for each in price.per_million)
    total = sum((count * each for count, each in zip(counts, prices, strict=True)), Decimal(0))
    return int((total * MONEY_UNITS / TOKENS_PER_PRICE).to_integral_value(ROUND_HALF_UP))


def money(units: int) -> float:
    """Converts an amount in units of 1e-9 of the currency (MONEY_UNITS of them are 1) to the currency."""
    return float(Decimal(units) / MONEY_UNITS)
