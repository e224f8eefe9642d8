"""For which API keys work ahead of the checks pays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.generation.wasted_share import MAX_KEYS, WastedShares


def test_few_refusals_among_many_requests_do_not_stop_work_ahead() -> None:
    shares, key = WastedShares(), ("acme", "k")
    for place in range(1000):
        assert place < 8 or shares.pays(key)
        shares.observe(key, 100, wasted=place % 5 == 0)
    assert shares.pays(("acme", "other"))


@pytest.mark.parametrize("allowed", [1, 2, 5])
def test_short_requests_that_pass_do_not_make_up_for_long_ones_that_do_not(allowed: int) -> None:
    shares, key, begun = WastedShares(), ("acme", "k"), 0
    for _ in range(100):
        for _ in range(allowed):
            shares.observe(key, 10, wasted=False)
        begun += shares.pays(key)
        shares.observe(key, 100_000, wasted=True)
    assert begun == 1


@given(st.lists(st.booleans(), max_size=200))
def test_no_more_requests_of_equal_length_are_begun_in_vain_than_pass(requests: list[bool]) -> None:
    shares, key, vain = WastedShares(), ("acme", "k"), 0
    for wasted in requests:
        vain += wasted and shares.pays(key)
        shares.observe(key, 100, wasted=wasted)
    assert vain <= 1 + requests.count(False)


def test_shares_of_few_keys_are_remembered() -> None:
    shares = WastedShares()
    shares.observe(("acme", "first"), 10, wasted=True)
    assert not shares.pays(("acme", "first"))
    for place in range(MAX_KEYS):
        shares.observe(("acme", str(place)), 10, wasted=True)
    assert len(shares._tokens) == MAX_KEYS
    assert shares.pays(("acme", "first"))
