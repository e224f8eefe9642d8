"""The admin API and usage routes: what they answer, and who gets no answer."""

from __future__ import annotations

import csv
import io

import pytest

from router.ports.state_store import StateHealth
from tests.access.service import ADMIN, Service, config

ROUTES = [
    ("POST", "/admin/v1/keys"),
    ("GET", "/admin/v1/keys"),
    ("GET", "/admin/v1/keys/{id}"),
    ("PATCH", "/admin/v1/keys/{id}"),
    ("DELETE", "/admin/v1/keys/{id}"),
    ("POST", "/admin/v1/keys/{id}/rotate"),
    ("GET", "/admin/v1/keys/{id}/limits"),
    ("GET", "/admin/v1/usage"),
    ("GET", "/admin/v1/usage?tenant=acme"),
    ("GET", "/admin/v1/status"),
]


@pytest.mark.parametrize(("key", "status"), [("sk-user", 403), ("sk-viewer", 403), ("sk-nobody", 401), (None, 401)])
@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_only_administrators_get_in(key: str | None, status: int, method: str, path: str) -> None:
    service = Service()
    made = await service.create()
    async with service.client(key) as http:
        refused = await http.request(method, path.format(id=made["id"]), json={})
    assert refused.status_code == status
    assert made["id"] not in refused.text
    async with service.client() as http:
        assert (await http.get(f"/admin/v1/keys/{made['id']}")).json()["active"] is True


async def test_a_created_key_is_shown_once_and_listed_without_its_secret() -> None:
    service = Service()
    made = await service.create(feature="search", limits={"requests_per_minute": 60})
    assert made["limits"] == {"requests_per_minute": 60}
    assert made["key"].startswith(made["prefix"])
    async with service.client() as http:
        listed = await http.get("/admin/v1/keys", params={"tenant": "acme"})
        assert listed.headers["cache-control"] == "no-store"
        assert (await http.get("/admin/v1/keys?tenant=none")).json()["data"] == []
    (row,) = listed.json()["data"]
    assert row == {name: value for name, value in made.items() if name != "key"}
    assert made["key"].rpartition("-")[2] not in listed.text


async def test_limits_are_changed_and_a_revoked_key_leaves_the_list() -> None:
    service = Service()
    made = await service.create(limits={"requests_per_minute": 60})
    path = f"/admin/v1/keys/{made['id']}"
    async with service.client() as http:
        changed = await http.patch(path, json={"limits": {"tokens_per_day": 1000}})
        assert changed.json()["limits"] == {"tokens_per_day": 1000}
        assert (await http.delete(path)).json()["deleted"] is True
        assert (await http.get("/admin/v1/keys")).json()["data"] == []
        assert (await http.get("/admin/v1/keys?include_revoked=true")).json()["data"][0]["id"] == made["id"]
        refused = await http.get("/admin/v1/keys?include_revoked=1")
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "include_revoked")
        assert (await http.post(f"{path}/rotate")).status_code == 404


async def test_where_requests_with_a_key_spill_is_set_and_taken_back() -> None:
    service = Service()
    made = await service.create(spill="up", limits={"requests_per_minute": 60})
    assert made["spill"] == "up"
    path = f"/admin/v1/keys/{made['id']}"
    async with service.client() as http:
        assert (await http.patch(path, json={"spill": "down"})).json()["spill"] == "down"
        assert (await http.get(path)).json()["limits"] == {"requests_per_minute": 60}, "the rest stays"
        assert (await http.patch(path, json={"limits": {}})).json()["spill"] == "down"
        assert (await http.patch(path, json={"spill": None})).json()["spill"] is None
        for wrong in ({}, {"spill": "sideways"}, {"tenant": "other"}):
            assert (await http.patch(path, json=wrong)).status_code == 400


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "param"),
    [
        ("POST", "/admin/v1/keys", {}, 400, "tenant"),
        (
            "POST",
            "/admin/v1/keys",
            {"tenant": "a", "limits": {"tokens_per_day": 0}},
            400,
            "limits.tokens_per_day",
        ),
        (
            "POST",
            "/admin/v1/keys",
            {"tenant": "a", "limits": {"money_per_month": 4e-10}},
            400,
            "limits.money_per_month",
        ),
        ("POST", "/admin/v1/keys", {"tenant": "a", "surprise": 1}, 400, "surprise"),
        ("POST", "/admin/v1/keys", {"tenant": "a", "tiers": ["fast", "turbo"]}, 400, "tiers"),
        ("POST", "/admin/v1/keys", {"tenant": "a", "role": "root"}, 400, "role"),
        ("POST", "/admin/v1/keys", {"tenant": "a\nb"}, 400, "tenant"),
        ("GET", "/admin/v1/keys/none", None, 404, None),
        ("GET", "/admin/v1/keys/%2e%2e%2f", None, 404, None),
        ("PUT", "/admin/v1/keys", {}, 405, None),
        ("GET", "/admin/v1/usage?group_by=user", None, 400, "group_by"),
        ("GET", "/admin/v1/usage?start=yesterday", None, 400, "start"),
        ("GET", "/admin/v1/usage?start=200&end=100", None, 400, "start"),
        ("GET", "/admin/v1/usage?bucket_width=1s", None, 400, "bucket_width"),
        ("GET", "/admin/v1/usage?start=0&bucket_width=1m", None, 400, "bucket_width"),
        ("GET", "/admin/v1/usage?format=xml", None, 400, "format"),
        ("GET", "/admin/v1/usage?sort=up", None, 400, "sort"),
        ("GET", "/v1/usage?tenant=other", None, 400, "tenant"),
        ("GET", "/admin/v1/secrets", None, 404, None),
    ],
)
async def test_a_wrong_request_is_refused_by_its_field(
    method: str, path: str, body: object, status: int, param: str | None
) -> None:
    async with Service().client() as http:
        refused = await http.request(method, path, json=body)
    assert (refused.status_code, refused.json()["error"]["param"]) == (status, param), refused.text


async def used_by_two() -> Service:
    service = Service()
    for key, feature in (("sk-user", "a"), ("sk-user", "b"), ("sk-other", "a")):
        async with service.client(key, **{"x-manta-feature": feature}) as http:
            await http.post("/v1/completions", json={"model": "fast", "prompt": "Hi"})
    return service


async def test_a_tenant_sees_its_own_usage_only() -> None:
    service = await used_by_two()
    for key in ("sk-user", "sk-viewer"):
        async with service.client(key) as http:
            rows = (await http.get("/v1/usage?group_by=feature")).json()["data"]
        found = [(row["tenant"], row["feature"], row["requests"]) for row in rows]
        assert found == [("acme", "a", 1), ("acme", "b", 1)]
        # The scripted backend counts 3 tokens of input, 1 of them cached, and 5 of output.
        assert {row["cost"] for row in rows} == {(2 * 1.0 + 1 * 0.25 + 5 * 4.0) / 1e6}
        assert set(rows[0]) >= {"team", "tier", "input_tokens", "cached_input_tokens", "output_tokens"}


async def test_an_administrator_sees_all_and_can_choose() -> None:
    service = await used_by_two()
    async with service.client(ADMIN) as http:
        by_tenant = (await http.get("/admin/v1/usage?group_by=tenant")).json()
        one = (await http.get("/admin/v1/usage?tenant=other")).json()["data"]
        text = await http.get("/admin/v1/usage?group_by=feature&format=csv&bucket_width=1d")
    assert [(row["tenant"], row["feature"], row["requests"]) for row in by_tenant["data"]] == [
        ("acme", None, 2),
        ("other", "a", 1),
    ]
    assert (by_tenant["object"], by_tenant["currency"]) == ("list", "USD")
    assert [row["tenant"] for row in one] == ["other"]
    assert text.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(text.text)))
    assert [(row["feature"], row["requests"], row["tenant"]) for row in rows] == [("a", "2", ""), ("b", "1", "acme")]
    assert int(rows[0]["end"]) - int(rows[0]["start"]) == 86_400


async def test_status_has_every_tier() -> None:
    async with Service().client() as http:
        data = (await http.get("/admin/v1/status")).json()["data"]
    assert [(tier["tier"], tier["ready"], tier["replicas"]) for tier in data] == [
        ("fast", True, 1),
        ("balanced", True, 1),
        ("frontier", True, 1),
    ]


async def test_the_use_of_a_keys_limits_and_of_its_tenants_is_shown() -> None:
    service = Service(config(tenants={"acme": {"limits": {"money_per_month": 2.5}}}))
    made = await service.create(limits={"requests_per_minute": 4, "concurrent_requests": 2})
    assert (await service.ask(made["key"])).status_code == 200
    async with service.client() as http:
        found = (await http.get(f"/admin/v1/keys/{made['id']}/limits")).json()["data"]
        assert (await http.get("/admin/v1/keys/none/limits")).status_code == 404

    cost = (2 * 1.0 + 1 * 0.25 + 5 * 4.0) / 1e6
    rows = [[each[name] for name in ("scope", "limit", "value", "used", "remaining")] for each in found]
    assert rows == [
        ["key", "requests_per_minute", 4, 1, 3],
        ["key", "concurrent_requests", 2, 0, 2],
        ["tenant", "money_per_month", 2.5, pytest.approx(cost), pytest.approx(2.5 - cost)],
    ]


async def test_the_status_says_how_the_shared_state_is_reached() -> None:
    service = Service()
    service.store.health = lambda: StateHealth({"reservations": "open"}, 7, 1)  # type: ignore[method-assign]
    async with service.client() as http:
        found = (await http.get("/admin/v1/status")).json()
    assert found["state"] == {"breakers": {"reservations": "open"}, "journal_bytes": 7, "lost_entries": 1}
    assert found["audit"] == {"journal_bytes": 0, "lost_records": 0}
    assert found["policies"] == {"unreadable": []}
