"""``DecisionStore``: the last decisions and the operators' pins, in the key-value store of Ray's head (GCS).

The autoscaler runs in Serve's controller and is asked about by routers. Both are always connected to that store, which
survives a restart of either; the shared state in Redis may not be configured, and the controller does not know it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_get, _internal_kv_list, _internal_kv_put

from cluster.autoscaling.decision import Decisions, TierDecision
from cluster.autoscaling.explain import explain
from cluster.autoscaling.snapshot import Pin

logger = logging.getLogger("ray.serve")

NAMESPACE = "manta"


class DecisionStore:
    """The decisions and pins of one application. All methods block. They raise RayError, RpcError or OSError if Ray's
    key-value store fails."""

    def __init__(self, application: str) -> None:
        self._decisions = f"autoscaling/{application}/decisions"
        self._pins = f"autoscaling/{application}/pins/"

    def write(self, decisions: Decisions) -> None:
        """Stores the decisions for each tier and follower."""
        _internal_kv_put(self._decisions, json.dumps(records_of(decisions)), overwrite=True, namespace=NAMESPACE)

    def read(self) -> list[dict[str, Any]]:
        """Returns the last decision for each tier and follower: ``tier`` (its name), ``at`` (Unix seconds), ``target``
        and ``previous`` in replicas, ``reason``, ``needs`` (what each signal asks for), ``numbers``, and ``text``,
        which explains it. Returns [] before the first decision."""
        stored = _internal_kv_get(self._decisions, namespace=NAMESPACE)
        found: list[dict[str, Any]] = json.loads(stored) if stored else []
        return found

    def pins(self) -> tuple[Pin, ...]:
        """Returns the pins, one for each tier at most, expired ones too. Those that cannot be read are left out."""
        keys = _internal_kv_list(self._pins, namespace=NAMESPACE)
        stored = (_internal_kv_get(key, namespace=NAMESPACE) for key in keys)
        return tuple(pin for each in stored if (pin := read_pin(each)) is not None)

    def set_pin(self, pin: Pin) -> None:
        """Stores the pin of a tier. Each tier has a key of its own, so that two administrators do not lose each other's
        pins."""
        _internal_kv_put(self._pins + pin.tier, json.dumps(asdict(pin)), overwrite=True, namespace=NAMESPACE)

    def delete_pin(self, tier: str) -> bool:
        """Deletes the pin of a tier. Returns whether there was one."""
        return bool(_internal_kv_del(self._pins + tier, namespace=NAMESPACE))


def read_pin(stored: bytes) -> Pin | None:
    """Returns a stored pin; None, after a warning in the log, for one that cannot be read, such as another
    release's."""
    try:
        return Pin(**json.loads(stored))
    except (TypeError, ValueError) as error:
        logger.warning("A stored pin of a tier cannot be read: %s", type(error).__name__)
        return None


def records_of(decisions: Decisions) -> list[dict[str, Any]]:
    """Returns the decisions as JSON, each as ``read`` has them."""
    every = (*decisions.tiers.values(), *decisions.followers.values())
    return [_record(decision, decisions.time_s) for decision in every]


def _record(decision: TierDecision, unix_s: float) -> dict[str, Any]:
    return {
        "tier": decision.tier,
        "at": unix_s,
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
