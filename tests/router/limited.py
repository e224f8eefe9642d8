"""``Limited``: a router whose key and tenant have limits."""

from __future__ import annotations

from typing import Any

import httpx

from router.config.failover import FailoverConfig
from router.config.keys import KeyConfig
from router.config.limits import LimitPolicy, LimitsConfig
from router.config.router import RouterConfig
from router.config.tenants import TenantConfig
from router.ports.limit_store import LimitName
from tests.router.fallible_store import FallibleStore
from tests.router.served import KEY, Served

CHAT: dict[str, Any] = {"model": "fast", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 10}
OTHER = "sk-limited-other"


class Limited(Served):
    """A router with a store that the test can look into, and that fails on demand."""

    def __init__(
        self, key: LimitsConfig | None = None, tenant: LimitsConfig | None = None, policy: LimitPolicy | None = None
    ) -> None:
        self.store = FallibleStore()
        config = RouterConfig(
            keys=(
                KeyConfig(key=KEY, tenant="acme", team="core", limits=key or LimitsConfig()),
                KeyConfig(key=OTHER, tenant="acme", team="core"),
            ),
            tenants={"acme": TenantConfig(limits=tenant or LimitsConfig())},
            limits=policy or LimitPolicy(lease_s=1),
            failover=FailoverConfig(max_attempts=1),
        )
        super().__init__(config, self.store)

    def chat(self, key: str = KEY, **fields: Any) -> httpx.Response:
        return self.http.post("/v1/chat/completions", json=CHAT | fields, headers={"authorization": f"Bearer {key}"})

    def used(self, name: LimitName) -> int:
        """What is used of the tenant's limit now."""
        state = self.store._limits["acme"]
        return sum(sum(counter.values()) for (_, kind), counter in state.counters.items() if kind is name)

    def open(self) -> int:
        return len(self.store._limits["acme"].held)
