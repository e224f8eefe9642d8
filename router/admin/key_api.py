"""``KeyApi``: the requests to ``/admin/v1/keys``, independent of the transport.

::

    POST   /admin/v1/keys                 creates a key and shows it, this one time
    GET    /admin/v1/keys                 lists keys; ``?tenant=``, ``?include_revoked=true``
    GET    /admin/v1/keys/{id}            shows one
    PATCH  /admin/v1/keys/{id}            replaces its limits
    DELETE /admin/v1/keys/{id}            revokes it
    POST   /admin/v1/keys/{id}/rotate     gives it a new secret
    GET    /admin/v1/keys/{id}/limits     shows how much of its limits, and of its tenant's, is used now
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from router.access.key_registry import KeyRegistry
from router.access.stored_key import StoredKey
from router.admin.admin_section import AdminCall
from router.admin.key_schemas import (
    KeyChange,
    NewKey,
    Rotation,
    check_tiers,
    key_document,
    limit_document,
    parse_document,
)
from router.config.limits import LimitsConfig
from router.errors import InvalidRequestError
from router.limits.limit_scopes import scopes_of
from router.ports.clock import Clock
from router.ports.state_store import StateStore
from router.principal import Principal

KEYS = "/admin/v1/keys"
MAX_BODY_BYTES = 64 * 1024


class KeyApi:
    """Answers requests of administrators about keys. ``tiers`` has the names of the tiers that a key may be for, and
    ``tenant_limits`` the limits of tenants, by name."""

    def __init__(
        self,
        registry: KeyRegistry,
        store: StateStore,
        tiers: Sequence[str],
        tenant_limits: Mapping[str, LimitsConfig],
        clock: Clock,
    ) -> None:
        self._registry = registry
        self._store = store
        self._tiers = tiers
        self._tenant_limits = tenant_limits
        self._clock = clock

    def methods(self, path: str) -> tuple[str, ...] | None:
        """Returns the HTTP methods that ``path`` accepts; None if this class does not serve ``path``."""
        match path.removeprefix(KEYS).split("/") if path.startswith(KEYS) else []:
            case [""]:
                return "GET", "POST"
            case ["", _]:
                return "GET", "PATCH", "DELETE"
            case ["", _, "rotate"]:
                return ("POST",)
            case ["", _, "limits"]:
                return ("GET",)
        return None

    async def answer(self, call: AdminCall, principal: Principal) -> dict[str, Any]:
        """Answers a request whose method and path are among ``methods``. Raises InvalidRequestError, NotFoundError,
        ConflictError and StateUnavailableError."""
        if call.path == KEYS:
            return await (self._list(call) if call.method == "GET" else self._create(call))
        key_id, _, action = call.path.removeprefix(f"{KEYS}/").partition("/")
        return await self._one(call, key_id, action)

    async def _one(self, call: AdminCall, key_id: str, action: str) -> dict[str, Any]:
        """Answers a request about one key."""
        registry, now = self._registry, self._clock.now()
        if action == "limits":
            return await self._limit_uses(await registry.get(key_id))
        if action == "rotate":
            rotation = parse_document(Rotation, await call.read(MAX_BODY_BYTES))
            stored, key = await registry.rotate(key_id, rotation.grace_s)
            return key_document(stored, now, key)
        if call.method == "DELETE":
            return {**key_document(await registry.revoke(key_id), now), "deleted": True}
        if call.method == "PATCH":
            change = parse_document(KeyChange, await call.read(MAX_BODY_BYTES))
            return key_document(await registry.change(key_id, change.settings), now)
        return key_document(await registry.get(key_id), now)

    async def _limit_uses(self, stored: StoredKey) -> dict[str, Any]:
        """Returns how much of the limits of a key and of its tenant is used now."""
        scopes = scopes_of(stored.id, stored.limits, self._tenant_limits.get(stored.tenant, LimitsConfig()))
        uses = await self._store.limit_uses(stored.tenant, scopes) if scopes else ()
        return {"object": "list", "data": [limit_document(use) for use in uses]}

    async def _create(self, call: AdminCall) -> dict[str, Any]:
        new = parse_document(NewKey, await call.read(MAX_BODY_BYTES))
        check_tiers(new, self._tiers)
        now = self._clock.now()
        stored, key = await self._registry.create(new, new.expiry(now))
        return key_document(stored, now, key)

    async def _list(self, call: AdminCall) -> dict[str, Any]:
        parameters, now = call.parameters, self._clock.now()
        for name in parameters.keys() - {"tenant", "include_revoked"}:
            shown = name.encode("ascii", "backslashreplace").decode()[:64]
            raise InvalidRequestError(f"There is no parameter '{shown}'.", "unknown_parameter", shown)
        revoked = _truth(parameters.get("include_revoked", "false"), "include_revoked")
        found = await self._registry.list(parameters.get("tenant") or None)
        shown_keys = [key_document(stored, now) for stored in found if revoked or stored.revoked_at is None]
        return {"object": "list", "data": shown_keys}


def _truth(text: str, name: str) -> bool:
    """Returns the truth value of the parameter ``name``. Raises InvalidRequestError for another text."""
    if (lowered := text.lower()) not in ("true", "false"):
        raise InvalidRequestError(f"{name} must be true or false.", "invalid_value", name)
    return lowered == "true"
