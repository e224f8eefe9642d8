"""Prices and estimates: exact money, and requests that are refused up front."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.api import Usage
from router.config.prices import PriceConfig
from router.ledger.price import cost_of, money
from tests.access.service import Service

COUNT = st.integers(0, 10**9)
PRICE = st.decimals(0, 1000, places=6).map(float)


@given(COUNT, COUNT, COUNT, PRICE, PRICE, PRICE)
def test_a_cost_is_exact_to_half_a_unit(prompt: int, cached: int, answer: int, a: float, b: float, c: float) -> None:
    price = PriceConfig(input=a, cached_input=b, output=c)
    cached = min(cached, prompt)
    exact = (prompt - cached) * Fraction(str(a)) + cached * Fraction(str(b)) + answer * Fraction(str(c))
    assert abs(cost_of(price, Usage(prompt, answer, cached)) - exact * 1000) <= Fraction(1, 2)


@pytest.mark.parametrize(("tokens", "cost"), [(1, 1), (2, 1), (3, 2), (5, 3), (1_000_001, 500_001)])
def test_half_a_unit_is_rounded_up(tokens: int, cost: int) -> None:
    assert cost_of(PriceConfig(input=0.0005, output=0.0), Usage(tokens, 7, 0)) == cost


def test_cached_input_costs_as_input_without_a_price_of_its_own() -> None:
    price = PriceConfig(input=0.15, output=0.6)
    assert cost_of(price, Usage(1_000_000, 0, 500_000)) == 150_000_000
    assert money(150_000_000) == 0.15
    assert cost_of(None, Usage(1, 1, 0)) == 0


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"max_tokens": 10, "max_cost": 0.00005}, 200),
        ({"max_tokens": 10, "max_cost": 0.00004}, 400),
        ({"max_tokens": 10, "n": 2, "max_cost": 0.00005}, 400),
        ({"max_tokens": 10, "model": "frontier", "max_cost": 0.00005}, 400),
        ({"max_tokens": 10, "prompt": ["Hi", "Ho"], "max_cost": 0.00005}, 400),
        ({"max_cost": 0}, 400),
        ({"max_cost": "1"}, 400),
    ],
)
async def test_a_request_that_may_cost_more_than_max_cost_is_refused(fields: dict[str, Any], status: int) -> None:
    service = Service()
    answer = await service.ask("sk-user", **fields)
    assert answer.status_code == status, answer.text
    if status == 400:
        assert answer.json()["error"]["param"] == "max_cost"
        assert not getattr(service.backend, "requests", [])
