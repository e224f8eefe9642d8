"""``ConfiguredPolicies``: the policies of the config file, which do not change at run time."""

from __future__ import annotations

from safety.policy import PolicyConfig, SafetyPolicies


class ConfiguredPolicies:
    """Returns each tenant's policy from the settings in ``policies``. Implements ``PolicySource``."""

    def __init__(self, policies: SafetyPolicies) -> None:
        self._policies = policies

    async def of(self, tenant: str) -> PolicyConfig:
        return self._policies.of(tenant)

    def replaced(self, tenant: str) -> bool:
        return False
