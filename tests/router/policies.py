"""``Policies``: safety policies that a test sets."""

from __future__ import annotations

from typing import Any

from safety.policy import PolicyConfig


class Policies:
    """Policies that a test sets. Implements ``PolicySource``."""

    def __init__(self) -> None:
        self.found: dict[str, PolicyConfig] = {}

    def replaced(self, tenant: str) -> bool:
        return False

    async def of(self, tenant: str) -> PolicyConfig:
        return self.found.get(tenant) or PolicyConfig(deadline_s=0.3)

    def set(self, tenant: str = "acme", **policy: Any) -> None:
        self.found[tenant] = PolicyConfig.model_validate({"deadline_s": 0.3, **policy})
