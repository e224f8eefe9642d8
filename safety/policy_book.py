"""``PolicyBook``: the policies of the config file, and those that were set at run time, which override them.

Stored policies are cached for ``cache_s`` seconds, then read again in the background, so that no request waits for the
store. While the store does not answer, the policy that was read last applies; before the first reading, that of the
config file.

The same applies if this release cannot read a stored policy, for example because a newer release has written it. If
none was read before, the substitute is not the policy that the tenant has asked for. Requests are then refused, unless
the substitute lets requests pass that could not be checked.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from pydantic import ValidationError

from safety.api import DEFAULT_POLICY, InvalidPolicyError, PolicyDocument, PolicyStore, PolicyStoreError
from safety.policy import PolicyConfig, SafetyPolicies

logger = logging.getLogger(__name__)

CACHE_S = 5.0
MAX_CACHED = 10_000  # tenants


class Read(NamedTuple):
    """The stored policy of one tenant as read last, and the time of the reading in seconds. ``policy`` None: none is
    stored."""

    policy: PolicyConfig | None
    at: float


class PolicyBook:
    """Implements ``PolicySource`` and ``safety.api.PolicyAdmin``. ``has_classifier``: the service has a classifier, so
    that policies may need one. ``on_unreadable`` is called each time that a stored policy cannot be read. A stored
    policy is read again after ``cache_s`` seconds of the clock ``now``."""

    def __init__(
        self,
        config: SafetyPolicies,
        store: PolicyStore,
        *,
        has_classifier: bool,
        cache_s: float = CACHE_S,
        now: Callable[[], float] = time.monotonic,
        on_unreadable: Callable[[], None] = lambda: None,
    ) -> None:
        self._config = config
        self._store = store
        self._has_classifier = has_classifier
        self._cache_s = cache_s
        self._now = now
        self._on_unreadable = on_unreadable
        self._unreadable: set[str] = set()  # tenants whose stored policy cannot be read
        self._read: OrderedDict[str, Read] = OrderedDict()
        self._reading: dict[str, asyncio.Task[PolicyConfig | None]] = {}

    async def of(self, tenant: str) -> PolicyConfig:
        """Returns the policy of a tenant: the stored one, else that of the config file, else the default."""
        own = await self._remembered(tenant)
        if own is None:
            own = self._config.tenants.get(tenant)
        return own or await self._remembered(DEFAULT_POLICY) or self._config.default

    def replaced(self, tenant: str) -> bool:
        own = self._read.get(tenant)
        if own is not None and own.policy is not None:
            return False
        if tenant in self._unreadable:
            return True
        if tenant in self._config.tenants:
            return False
        default = self._read.get(DEFAULT_POLICY)
        return DEFAULT_POLICY in self._unreadable and (default is None or default.policy is None)

    def unreadable(self) -> Sequence[str]:
        return sorted(self._unreadable)

    async def policy(self, tenant: str) -> PolicyDocument:
        document = await self._store.policy(tenant)
        if document is not None and (found := self._parsed(tenant, document)) is not None:
            return _document(tenant, found, stored=True)
        configured = self._config.default if tenant == DEFAULT_POLICY else await self._fallback(tenant)
        return replace(_document(tenant, configured, stored=False), unreadable=document is not None)

    async def policies(self) -> Sequence[PolicyDocument]:
        tenants = {DEFAULT_POLICY, *self._config.tenants, *await self._store.policy_tenants()}
        return [await self.policy(tenant) for tenant in sorted(tenants)]

    async def set_policy(self, tenant: str, document: bytes) -> PolicyDocument:
        policy = self._checked(document)
        await self._store.put_policy(tenant, policy.model_dump_json())
        self._unreadable.discard(tenant)
        self._remember(tenant, policy)
        return _document(tenant, policy, stored=True)

    async def remove_policy(self, tenant: str) -> PolicyDocument:
        await self._store.delete_policy(tenant)
        self._unreadable.discard(tenant)
        self._remember(tenant, None)
        return await self.policy(tenant)

    async def _fallback(self, tenant: str) -> PolicyConfig:
        own = self._config.tenants.get(tenant)
        return own if own is not None else await self._remembered(DEFAULT_POLICY) or self._config.default

    def _checked(self, document: bytes) -> PolicyConfig:
        """Returns the policy in a document. Raises InvalidPolicyError."""
        try:
            policy = PolicyConfig.model_validate_json(document)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            field = ".".join(map(str, first["loc"]))[:128].encode("ascii", "backslashreplace").decode()
            raise InvalidPolicyError(first["msg"], field or None) from None
        if policy.classifies and not self._has_classifier:
            raise InvalidPolicyError("it needs a classifier, and this service has none", None)
        return policy

    async def _remembered(self, tenant: str) -> PolicyConfig | None:
        """Returns the stored policy of a tenant; None if there is none. Waits for the store at the first time only."""
        found = self._read.get(tenant)
        if found is not None:
            self._read.move_to_end(tenant)
            if self._now() - found.at >= self._cache_s:
                self._read_again(tenant)
            return found.policy
        return await asyncio.shield(self._read_again(tenant))

    def _read_again(self, tenant: str) -> asyncio.Task[PolicyConfig | None]:
        """Returns the task that reads the policy of a tenant, a running one if there is one."""
        if (running := self._reading.get(tenant)) is None:
            running = self._reading[tenant] = asyncio.create_task(self._fetch(tenant))
            running.add_done_callback(lambda _: self._reading.pop(tenant, None))
        return running

    async def _fetch(self, tenant: str) -> PolicyConfig | None:
        before = self._read.get(tenant)
        try:
            document = await self._store.policy(tenant)
        except PolicyStoreError as error:
            logger.warning("the policy of a tenant cannot be read: %s", error)
            return self._remember(tenant, None if before is None else before.policy)
        policy = self._parsed(tenant, document)
        if policy is None and document is not None and before is not None:
            policy = before.policy
        return self._remember(tenant, policy)

    def _parsed(self, tenant: str, document: str | None) -> PolicyConfig | None:
        """Returns the stored policy; None if there is none, or if this release cannot read it, which is noted."""
        self._unreadable.discard(tenant)
        if document is None:
            return None
        try:
            return PolicyConfig.model_validate_json(document)
        except ValidationError:
            logger.error("the stored policy of the tenant %s cannot be read by this release", tenant)
            self._unreadable.add(tenant)
            self._on_unreadable()
            return None

    def _remember(self, tenant: str, policy: PolicyConfig | None) -> PolicyConfig | None:
        self._read[tenant] = Read(policy, self._now())
        self._read.move_to_end(tenant)
        if len(self._read) > MAX_CACHED:
            self._read.popitem(last=False)
        return policy


def _document(tenant: str, policy: PolicyConfig, *, stored: bool) -> PolicyDocument:
    return PolicyDocument(tenant, policy.version, policy.model_dump_json(), stored)
