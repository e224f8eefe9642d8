"""The policies by name."""

from __future__ import annotations

from collections.abc import Callable

from load_tests.simulation.observation import Policy
from load_tests.simulation.policies.keda import KedaPolicy
from load_tests.simulation.policies.kpa import KpaPolicy
from load_tests.simulation.policies.planner import PlannerPolicy
from load_tests.simulation.policies.serve_default import ServeDefaultPolicy
from load_tests.simulation.tier import Tier


def _manta(tier: Tier) -> Policy:
    # Imported when it runs: the product's policy brings pydantic and time zones, which peers and oracle do without.
    from load_tests.simulation.policies.manta import MantaPolicy

    return MantaPolicy(tier)


POLICIES: dict[str, Callable[[Tier], Policy]] = {
    "manta": _manta,
    "serve": ServeDefaultPolicy,
    "keda": KedaPolicy,
    "kpa": KpaPolicy,
    "planner": PlannerPolicy,
}
