"""``SafetyStore``: the port to the safety state that all routers share: policies, the review queue, its exceptions and
the audit log.

``cluster.state`` implements it with Redis; ``router.memory_safety_store`` in the memory of one process. One suite of
contract tests runs both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from router.ports.audit_store import AuditStore
from router.ports.review_store import ReviewStore


class SafetyStore(Protocol):
    """The shared state of safety. Each coroutine but ``start`` and ``close`` raises StateUnavailableError if the store
    does not answer in time."""

    @property
    def reviews(self) -> ReviewStore:
        """The review queues and the exceptions."""
        ...

    @property
    def audit(self) -> AuditStore:
        """The audit log."""
        ...

    async def start(self) -> None:
        """Prepares for calls. Called once, on the event loop of all other calls. Does not fail if the store is down."""
        ...

    async def close(self) -> None:
        """Closes all connections. Further calls raise StateUnavailableError."""
        ...

    async def policy(self, tenant: str) -> str | None:
        """Returns the policy of a tenant, as JSON; None if none was set. It takes one round trip, since requests may
        wait for it."""
        ...

    async def put_policy(self, tenant: str, document: str) -> None:
        """Stores the policy of a tenant, as the JSON text ``document``, in place of an earlier one."""
        ...

    async def delete_policy(self, tenant: str) -> bool:
        """Deletes the policy of a tenant. Returns whether there was one."""
        ...

    async def policy_tenants(self) -> Sequence[str]:
        """Returns the tenants that have a policy, sorted."""
        ...

    async def secret(self, proposed: bytes) -> bytes:
        """Returns the secret that all routers share. The first call stores its ``proposed`` one; later calls return
        that."""
        ...
