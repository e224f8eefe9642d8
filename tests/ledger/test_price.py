"""Prices and estimates: exact money, and requests that are refused up front."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.api import SamplingParams, Usage
from router.answer_events import Stamp
from router.config.prices import PriceConfig
from router.inference_request import InferenceRequest
from router.ledger.max_usage import largest_usage, least_estimate
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


@given(
    st.integers(0, 3000),
    st.integers(0, 800),
    st.one_of(st.none(), st.integers(1, 2000)),
    st.integers(1, 4),
    PRICE,
    PRICE,
)
def test_what_a_request_costs_at_least_is_no_more_than_with_its_passages(
    characters: int, passages: int, max_tokens: int | None, n: int, a: float, b: float
) -> None:
    sampling = SamplingParams(max_tokens=max_tokens, n=n)
    asked = InferenceRequest("fast", ["x" * characters], sampling, "prompt", _no_writer)
    found = replace(asked, prompts=["x" * (characters + 3 * passages)])
    price = PriceConfig(input=a, output=b)

    for whole in (True, False):
        least = cost_of(price, least_estimate(asked, 1024, 800, whole=whole))
        assert least <= cost_of(price, largest_usage(found, 1024))
        assert least <= cost_of(price, largest_usage(asked, 1024))


def test_an_answer_in_a_context_of_unknown_length_costs_at_least_nothing() -> None:
    asked = InferenceRequest("fast", ["x" * 30], SamplingParams(max_tokens=100), "prompt", _no_writer)
    assert least_estimate(asked, None, 10, whole=True) == Usage(11, 0, 0)


def _no_writer(stamp: Stamp) -> NoReturn:
    raise AssertionError("no answer is written")


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
