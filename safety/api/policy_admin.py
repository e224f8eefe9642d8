"""The ports to the policies that are set at run time: their store, and the operations of administrators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

DEFAULT_POLICY = "*"
"""Takes the place of a tenant's name for the policy of all tenants that have none of their own."""


class PolicyStoreError(Exception):
    """The store of policies did not answer."""


class InvalidPolicyError(ValueError):
    """A document is no policy. ``field`` is the setting that is wrong; None: no single one is."""

    def __init__(self, message: str, field: str | None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field


@dataclass(frozen=True, slots=True)
class PolicyDocument:
    """The policy in effect for a tenant, as JSON. ``stored``: it was set at run time, not by the config file.
    ``unreadable``: another policy was set at run time, which this release cannot read."""

    tenant: str
    version: str
    document: str
    stored: bool
    unreadable: bool = False


class PolicyStore(Protocol):
    """The policies that were set at run time, by tenant, as JSON. Each method raises PolicyStoreError."""

    async def policy(self, tenant: str) -> str | None:
        """Returns the policy of a tenant; None if there is none."""
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


class PolicyAdmin(Protocol):
    """The operations of administrators on policies. Each coroutine raises PolicyStoreError. ``tenant`` may be
    DEFAULT_POLICY."""

    def unreadable(self) -> Sequence[str]:
        """Returns the tenants whose stored policy this release cannot read, sorted. Only policies that this process has
        tried to read are known."""
        ...

    async def policies(self) -> Sequence[PolicyDocument]:
        """Returns all policies, sorted by tenant."""
        ...

    async def policy(self, tenant: str) -> PolicyDocument:
        """Returns the policy in effect for a tenant."""
        ...

    async def set_policy(self, tenant: str, document: bytes) -> PolicyDocument:
        """Replaces the policy of a tenant. All routers use it within seconds. Raises InvalidPolicyError if ``document``
        is no valid policy."""
        ...

    async def remove_policy(self, tenant: str) -> PolicyDocument:
        """Removes the policy that was set at run time. Returns the policy that is then in effect."""
        ...
