"""``AdminApi``: the requests to ``/admin/v1`` and ``/v1/usage``, independent of the transport.

::

    POST   /admin/v1/keys                 creates a key and shows it, this one time
    GET    /admin/v1/keys                 lists keys; ``?tenant=``, ``?include_revoked=true``
    GET    /admin/v1/keys/{id}            shows one
    PATCH  /admin/v1/keys/{id}            replaces its limits
    DELETE /admin/v1/keys/{id}            revokes it
    POST   /admin/v1/keys/{id}/rotate     gives it a new secret
    GET    /admin/v1/keys/{id}/limits     shows how much of its limits, and of its tenant's, is used now
    GET    /admin/v1/usage                usage of all tenants
    GET    /admin/v1/status               tiers, replicas, load; how this router reaches the shared state
    GET    /v1/usage                      usage of the key's own tenant
    ...    /admin/v1/review, /admin/v1/audit   see ``router.admin.review_api``
    ...    /admin/v1/safety/policies            see ``router.admin.policy_api``
    ...    /admin/v1/prompts                    see ``router.admin.prompt_api``
    ...    /admin/v1/cache, /v1/cache/feedback  see ``router.admin.cache_api``
    ...    /admin/v1/scaling                    see ``router.admin.scaling_api``
    ...    /admin/v1/overview                   see ``router.admin.overview_api``
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from router.access.authenticator import Authenticator
from router.access.key_registry import KeyRegistry
from router.access.permissions import check_admin, check_endpoint
from router.access.stored_key import StoredKey
from router.admin.cache_api import FEEDBACK, CacheApi
from router.admin.key_schemas import (
    KeyChange,
    NewKey,
    Rotation,
    check_tiers,
    key_document,
    limit_document,
    parse_document,
)
from router.admin.overview_api import OverviewApi
from router.admin.policy_api import PolicyApi
from router.admin.prompt_api import PromptApi
from router.admin.review_api import ReviewApi
from router.admin.scaling_api import ScalingApi
from router.config.limits import LimitsConfig
from router.errors import InvalidRequestError, UnavailableError
from router.ledger.usage_report import csv_of, question_of, rows_of
from router.limits.limit_scopes import scopes_of
from router.ports.audit_store import AuditStore
from router.ports.clock import Clock
from router.ports.state_store import StateStore, StateUnavailableError
from router.ports.tier_backend import TierBackend
from router.principal import Principal

KEYS, USAGE, STATUS, OWN_USAGE = "/admin/v1/keys", "/admin/v1/usage", "/admin/v1/status", "/v1/usage"
MAX_BODY_BYTES = 64 * 1024
JSON, CSV, JSON_LINES = "application/json", "text/csv; charset=utf-8", "application/jsonl; charset=utf-8"


@dataclass(frozen=True, slots=True)
class AdminCall:
    """One HTTP request to the admin API.

    ``read`` returns the body; its argument is the largest size accepted, in bytes. ``parameters`` are those of the
    query.
    """

    method: str
    path: str
    parameters: Mapping[str, str]
    credentials: str | None
    read: Callable[[int], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class Reply:
    """The body of a response and its media type."""

    body: str
    media_type: str = JSON


class AdminApi:
    """Answers requests for keys, usage, status, reviews, the audit log and stored answers. All under ``/admin/v1`` need
    the role ``admin``."""

    def __init__(
        self,
        authenticator: Authenticator,
        registry: KeyRegistry,
        store: StateStore,
        backend: TierBackend,
        reviews: ReviewApi,
        policies: PolicyApi,
        prompts: PromptApi,
        cache: CacheApi,
        scaling: ScalingApi,
        overview: OverviewApi,
        clock: Clock,
        currency: str,
        tenants: Mapping[str, LimitsConfig],
        audit: AuditStore,
    ) -> None:
        self._audit = audit
        self._reviews = reviews
        self._policies = policies
        self._prompts = prompts
        self._cache = cache
        self._scaling = scaling
        self._overview = overview
        self._authenticator = authenticator
        self._registry = registry
        self._store = store
        self._backend = backend
        self._clock = clock
        self._currency = currency
        self._tenants = tenants  # the limits of tenants, by name

    def methods(self, path: str) -> tuple[str, ...] | None:
        """Returns the HTTP methods that ``path`` accepts; None if this class does not serve ``path``."""
        match path.removeprefix(KEYS).split("/") if path.startswith(f"{KEYS}/") else []:
            case ["", _]:
                return "GET", "PATCH", "DELETE"
            case ["", _, "rotate"]:
                return ("POST",)
            case ["", _, "limits"]:
                return ("GET",)
        own = {KEYS: ("GET", "POST"), USAGE: ("GET",), STATUS: ("GET",), OWN_USAGE: ("GET",)}
        rooms = (self._reviews, self._policies, self._prompts, self._cache, self._scaling, self._overview)
        return own.get(path) or next((found for room in rooms if (found := room.methods(path))), None)

    async def handle(self, call: AdminCall) -> Reply:
        """Answers a request whose method and path are among ``methods``.

        Raises AuthenticationError, PermissionDeniedError, InvalidRequestError, NotFoundError, ConflictError, and
        UnavailableError if the shared state cannot be reached.
        """
        principal = await self._authenticator.authenticate(call.credentials)
        try:
            if call.path == OWN_USAGE:
                check_endpoint(principal, OWN_USAGE, inference=False)
                return await self._usage(call, principal.tenant)
            if call.path == FEEDBACK:
                check_endpoint(principal, FEEDBACK)
                return _reply(await self._cache.answer(FEEDBACK, call.read, principal))
            check_admin(principal)
            return await self._administer(call, principal)
        except StateUnavailableError:
            message = "The shared state cannot be reached at the moment."
            raise UnavailableError(message, "state_unavailable", retry_after_s=5) from None

    async def _administer(self, call: AdminCall, principal: Principal) -> Reply:
        if self._reviews.methods(call.path) is not None:
            answer = await self._reviews.answer(call.method, call.path, call.parameters, call.read, principal)
            return Reply(answer, JSON_LINES) if isinstance(answer, str) else _reply(answer)
        if self._policies.methods(call.path) is not None:
            return _reply(await self._policies.answer(call.method, call.path, call.read))
        if self._prompts.methods(call.path) is not None:
            return _reply(await self._prompts.answer(call.method, call.path, call.parameters, call.read, principal))
        if self._cache.methods(call.path) is not None:
            return _reply(await self._cache.answer(call.path, call.read, principal))
        if self._scaling.methods(call.path) is not None:
            return _reply(await self._scaling.answer(call.method, call.path, call.read, principal))
        if self._overview.methods(call.path) is not None:
            return _reply(await self._overview.answer())
        if call.path == USAGE:
            return await self._usage(call, None)
        if call.path == STATUS:
            return _reply(self._status())
        if call.path == KEYS:
            return _reply(await (self._list(call) if call.method == "GET" else self._create(call)))
        key_id, _, action = call.path.removeprefix(f"{KEYS}/").partition("/")
        return _reply(await self._one(call, key_id, action))

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
        scopes = scopes_of(stored.id, stored.limits, self._tenants.get(stored.tenant, LimitsConfig()))
        uses = await self._store.limit_uses(stored.tenant, scopes) if scopes else ()
        return {"object": "list", "data": [limit_document(use) for use in uses]}

    async def _create(self, call: AdminCall) -> dict[str, Any]:
        new = parse_document(NewKey, await call.read(MAX_BODY_BYTES))
        check_tiers(new, [tier.name for tier in self._backend.tiers()])
        now = self._clock.now()
        stored, key = await self._registry.create(new, new.expiry(now))
        return key_document(stored, now, key)

    async def _list(self, call: AdminCall) -> dict[str, Any]:
        parameters, now = call.parameters, self._clock.now()
        for name in parameters.keys() - {"tenant", "include_revoked"}:
            shown = name.encode("ascii", "backslashreplace").decode()[:64]
            raise InvalidRequestError(f"There is no parameter '{shown}'.", "unknown_parameter", shown)
        revoked = parameters.get("include_revoked", "false").lower() == "true"
        found = await self._registry.list(parameters.get("tenant") or None)
        shown_keys = [key_document(stored, now) for stored in found if revoked or stored.revoked_at is None]
        return {"object": "list", "data": shown_keys}

    async def _usage(self, call: AdminCall, tenant: str | None) -> Reply:
        """Answers with the usage of ``tenant``; None: of the tenant that the request names, or of all."""
        question = question_of(call.parameters, self._clock.now(), tenant)
        rows = rows_of(question, await self._store.sums(question.query))
        if question.csv:
            return Reply(csv_of(question, rows), CSV)
        query = question.query
        span = {"start": query.start_ms // 1000, "end": query.end_ms // 1000, "currency": self._currency}
        return _reply({"object": "list", "data": rows, **span})

    def _status(self) -> dict[str, Any]:
        tiers = zip(self._backend.tiers(), self._backend.snapshot(), strict=True)
        data = [
            {
                "tier": tier.name,
                "model": tier.model,
                "ready": now.available,
                "replicas": len(now.replicas),
                "context_length": now.context_length,
                "running": now.running,
                "waiting": now.waiting,
                "wait_s": now.wait_s,
                "kv_used": now.kv_used,
            }
            for tier, now in tiers
        ]
        return {"object": "list", "data": data, **self._health()}

    def _health(self) -> dict[str, Any]:
        """Returns how this router reaches what it shares with others, and what it has lost."""
        state, log = asdict(self._store.health()), asdict(self._audit.health())
        return {"state": state, "audit": log, "policies": self._policies.status()}


def _reply(document: Mapping[str, Any]) -> Reply:
    return Reply(json.dumps(document))
