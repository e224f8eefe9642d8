"""The policies by name."""

from __future__ import annotations

from collections.abc import Callable

from load_tests.simulation.observation import Policy, Tier
from load_tests.simulation.policies.keda import KedaPolicy
from load_tests.simulation.policies.kpa import KpaPolicy
from load_tests.simulation.policies.manta import MantaPolicy
from load_tests.simulation.policies.planner import PlannerPolicy
from load_tests.simulation.policies.serve_default import ServeDefaultPolicy

POLICIES: dict[str, Callable[[Tier], Policy]] = {
    "manta": MantaPolicy,
    "serve": ServeDefaultPolicy,
    "keda": KedaPolicy,
    "kpa": KpaPolicy,
    "planner": PlannerPolicy,
}
