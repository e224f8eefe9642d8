"""Requests that their tier cannot serve in time go to another one, if their tenant and key allow it."""

from __future__ import annotations

import pytest

from router.admission.spill import allowed_spill
from router.config.keys import KeyConfig
from router.config.tenants import Spill, TenantConfig
from tests.router.loaded import CONFIG, LoadedBackend, ask
from tests.router.served import KEY, OTHER_KEY, Served


def test_a_tenant_that_allows_it_gets_another_tier_and_the_header_says_so(small: Served) -> None:
    small.backend.wait_s = 60.0  # type: ignore[attr-defined]

    spilled = ask(small, OTHER_KEY, service_tier="priority")
    assert spilled.status_code == 200
    assert spilled.headers["x-manta-tier"] == "balanced"
    assert spilled.headers["x-manta-route-reason"] == "explicit; spilled, fast refused it: ttft"
    assert small.backend.tiers_used == ["balanced"]

    assert ask(small, OTHER_KEY, service_tier="priority", spill="down").status_code == 429
    assert ask(small, OTHER_KEY, service_tier="priority", spill="none").status_code == 429
    assert ask(small, KEY, service_tier="priority", spill="any").status_code == 429, "the tenant does not allow it"


def test_a_key_narrows_what_its_tenant_allows_or_says_what_counts_if_that_says_nothing() -> None:
    directions: tuple[Spill, ...] = ("none", "up", "down", "any")
    for key in directions:
        assert allowed_spill(None, key, "up") == key
        assert allowed_spill("none", key, "any") == "none"
        assert allowed_spill("any", key, "none") == key
    assert allowed_spill("up", "down", "any") == "none"
    assert allowed_spill("up", "any", "any") == "up"
    assert allowed_spill(None, None, "down") == "down"


def test_a_token_narrows_the_common_setting_where_its_tenant_says_nothing() -> None:
    for claim in (None, "none", "up", "down", "any"):
        assert allowed_spill(None, claim, "none", only_narrows=True) == "none"
        assert allowed_spill(None, claim, "any", only_narrows=True) == (claim or "any")
        assert allowed_spill("up", claim, "none", only_narrows=True) == allowed_spill("up", claim, "none")
    assert allowed_spill(None, "any", "up", only_narrows=True) == "up"


@pytest.mark.parametrize(
    ("tenant", "key", "status"), [(None, "up", 200), ("any", "down", 429), ("none", "any", 429), ("up", None, 200)]
)
def test_requests_spill_as_their_key_says(tenant: Spill | None, key: Spill | None, status: int) -> None:
    keys = (KeyConfig(key=KEY, tenant="acme", team="core", spill=key),)
    config = CONFIG.model_copy(update={"keys": keys, "tenants": {"acme": TenantConfig(spill=tenant)}})
    served, backend = Served(config), LoadedBackend()
    backend.wait_s = 60.0
    served.backend = backend
    try:
        assert ask(served, service_tier="priority").status_code == status
    finally:
        served.stop()


def test_a_request_spills_to_no_tier_that_may_cost_more_than_it_allows(small: Served) -> None:
    small.backend.wait_s = 60.0  # type: ignore[attr-defined]

    answer = ask(small, OTHER_KEY, service_tier="priority", max_cost=1e-9)
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "overloaded")
    assert ask(small, OTHER_KEY, service_tier="priority", max_cost=1.0).headers["x-manta-tier"] == "balanced"
