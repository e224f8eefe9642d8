"""``StatusApi``: the request to ``/admin/v1/status``, independent of the transport.

::

    GET    /admin/v1/status               tiers, replicas, load; how this router reaches the shared state
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from router.admin.admin_section import AdminCall
from router.admin.policy_api import PolicyApi
from router.ports.audit_store import AuditStore
from router.ports.state_store import StateStore
from router.ports.tier_backend import TierBackend
from router.principal import Principal

STATUS = "/admin/v1/status"


class StatusApi:
    """Answers requests of administrators for the status of the tiers and of this router."""

    def __init__(self, backend: TierBackend, store: StateStore, audit: AuditStore, policies: PolicyApi) -> None:
        self._backend = backend
        self._store = store
        self._audit = audit
        self._policies = policies

    def methods(self, path: str) -> tuple[str, ...] | None:
        """Returns the HTTP methods that ``path`` accepts; None if this class does not serve ``path``."""
        return ("GET",) if path == STATUS else None

    async def answer(self, call: AdminCall, principal: Principal) -> dict[str, Any]:
        """Answers a request whose method and path are among ``methods``."""
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
