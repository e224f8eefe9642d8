"""Every route for administrators, also one that is added later, is closed to every other role."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

from router import admin
from router.config.keys import KeyConfig, Role
from safety.policy import PolicyConfig
from tests.access.service import Service, config

SECTIONS = [name for _, name, _ in pkgutil.iter_modules(admin.__path__, "router.admin.") if name.endswith("_api")]
ROUTES = sorted(
    (method, path)
    for module in map(importlib.import_module, SECTIONS)
    for method, path, *_ in (line.split() for line in (module.__doc__ or "").splitlines() if line.startswith("    "))
    if method in ("GET", "POST", "PUT", "PATCH", "DELETE") and path.startswith("/admin/")
)
UNCLASSIFIED = {"content": None, "content_answers": None, "injection": {"user": None, "documents": None}}
SECRET_TENANT = "acme-secret-tenant"


def test_the_routes_are_found() -> None:
    assert len(ROUTES) > 20
    assert {path.split("/")[3] for _, path in ROUTES} == {
        "keys",
        "usage",
        "status",
        "review",
        "audit",
        "safety",
        "prompts",
        "cache",
        "scaling",
        "overview",
    }


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_no_other_role_of_any_tenant_gets_in_or_learns_anything(method: str, path: str) -> None:
    roles = [role for role in Role if role is not Role.ADMIN]
    keys = [
        KeyConfig(key=f"sk-{role.value}-{tenant}", tenant=tenant, team="core", role=role)
        for role in roles
        for tenant in ("other", SECRET_TENANT)
    ]
    settings = config()
    settings = settings.model_copy(update={"keys": (*settings.keys, *keys)})
    service = Service(settings, policy=PolicyConfig.model_validate(UNCLASSIFIED))
    made = await service.create(tenant=SECRET_TENANT)
    path = path.format(id=made["id"], tenant=SECRET_TENANT, version=1, tier="fast")
    for key in keys:
        async with service.client(key.key) as http:
            refused = await http.request(method, f"{path}?tenant={SECRET_TENANT}", json={"tenant": SECRET_TENANT})
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "admin_required")
        assert not any(hidden in refused.text for hidden in (SECRET_TENANT, made["id"], made["prefix"]))
    async with service.client() as http:
        allowed = await http.request(method, path, json={})
    assert allowed.status_code not in (401, 403, 405)


@pytest.mark.parametrize("role", Role)
async def test_the_own_usage_is_that_of_the_keys_tenant_whatever_is_asked_for(role: Role) -> None:
    settings = config()
    key = KeyConfig(key="sk-asks", tenant="other", team="core", role=role)
    service = Service(settings.model_copy(update={"keys": (*settings.keys, key)}))
    assert (await service.ask("sk-user")).status_code == 200
    async with service.client("sk-asks") as http:
        own = (await http.get("/v1/usage?group_by=tenant,key")).json()
        assert own["data"] == []
        assert (await http.get("/v1/usage?tenant=acme")).status_code == 400
