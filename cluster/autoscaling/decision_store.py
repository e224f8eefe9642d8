"""``DecisionStore``: the last decisions and the operators' pins, in the key-value store of Ray's head (GCS).

The autoscaler runs in Serve's controller and is asked about by routers. Both are always connected to that store, which
survives a restart of either; the shared state in Redis may not be configured, and the controller does not know it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put

from cluster.autoscaling.decision import Decisions, TierDecision
from cluster.autoscaling.explain import explain
from cluster.autoscaling.snapshot import Pin

NAMESPACE = "manta"


class DecisionStore:
    """The decisions and pins of one application. All methods block, and raise what Ray's client raises."""

    def __init__(self, application: str) -> None:
        self._decisions = f"autoscaling/{application}/decisions"
        self._pins = f"autoscaling/{application}/pins"

    def write(self, decisions: Decisions) -> None:
        """Stores the decisions for each tier."""
        _internal_kv_put(self._decisions, json.dumps(records_of(decisions)), overwrite=True, namespace=NAMESPACE)

    def read(self) -> list[dict[str, Any]]:
        """Returns the last decision for each tier: ``tier``, ``at`` (Unix seconds), ``target``, ``previous``,
        ``reason``, ``numbers``, and ``text``, which explains it."""
        stored = _internal_kv_get(self._decisions, namespace=NAMESPACE)
        found: list[dict[str, Any]] = json.loads(stored) if stored else []
        return found

    def pins(self) -> tuple[Pin, ...]:
        """Returns the pins, the latest last, expired ones too."""
        stored = _internal_kv_get(self._pins, namespace=NAMESPACE)
        return tuple(Pin(**each) for each in json.loads(stored)) if stored else ()

    def set_pins(self, pins: Iterable[Pin]) -> None:
        """Replaces the pins."""
        _internal_kv_put(self._pins, json.dumps(list(map(asdict, pins))), overwrite=True, namespace=NAMESPACE)


def records_of(decisions: Decisions) -> list[dict[str, Any]]:
    """Returns the decisions as JSON, each as ``read`` has them."""
    return [_record(decision, decisions.at_s) for decision in decisions.tiers.values()]


def _record(decision: TierDecision, at_s: float) -> dict[str, Any]:
    return {
        "tier": decision.tier,
        "at": at_s,
        "target": decision.target,
        "previous": decision.previous,
        "reason": decision.reason.value,
        "needs": _needs(decision),
        "numbers": dict(decision.numbers),
        "text": explain(decision),
    }


def _needs(decision: TierDecision) -> Sequence[dict[str, Any]]:
    return [
        {"reason": need.reason.value, "replicas": need.replicas, "value": need.value, "limit": need.limit}
        for need in decision.needs
    ]
