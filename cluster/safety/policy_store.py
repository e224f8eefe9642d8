"""``SharedPolicies``: adapts the shared store of policies to the port of the guard."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import TypeVar

from router.ports.safety_store import SafetyStore
from router.ports.state_store import StateUnavailableError
from safety.api import PolicyStoreError

T = TypeVar("T")


class SharedPolicies:
    """Implements ``safety.api.PolicyStore`` with the shared state, and converts its errors to those of
    ``safety.api``."""

    def __init__(self, store: SafetyStore) -> None:
        self._store = store

    async def policy(self, tenant: str) -> str | None:
        return await _called(self._store.policy(tenant))

    async def put_policy(self, tenant: str, document: str) -> None:
        await _called(self._store.put_policy(tenant, document))

    async def delete_policy(self, tenant: str) -> bool:
        return await _called(self._store.delete_policy(tenant))

    async def policy_tenants(self) -> Sequence[str]:
        return await _called(self._store.policy_tenants())


async def _called(call: Awaitable[T]) -> T:
    try:
        return await call
    except StateUnavailableError as error:
        raise PolicyStoreError(str(error)) from None
