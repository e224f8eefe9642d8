"""``DecisionMetrics``: the decisions of the autoscaler as metrics.

======================================  =====================  =======================================================
gauge                                   labels                 unit
======================================  =====================  =======================================================
ray_manta_autoscaling_target_replicas   tier                   replicas that the tier should have
ray_manta_autoscaling_ready_replicas    tier                   replicas that serve
ray_manta_autoscaling_needed_replicas   tier                   replicas that the load needs, as a fraction
ray_manta_autoscaling_cold_start_s      tier                   seconds from the order of a replica until it serves
ray_manta_autoscaling_waiting_requests  tier                   requests that wait for a first replica
ray_manta_autoscaling_budget_burn       tier                   requests late or refused lately, by those that may be
======================================  =====================  =======================================================

The deployments beside the tiers (``autoscaling.followers``) have the first three, with their names as ``tier``.

``ray_manta_autoscaling_decisions_total`` counts decisions by ``tier`` and ``reason``, one per control interval, and
``ray_manta_autoscaling_why_not_total`` by ``tier``, ``direction`` (more, fewer) and the ``reason`` against it. Each
series has the label ``application``, too."""

from __future__ import annotations

from cluster.autoscaling.decision import TierDecision
from cluster.telemetry.instruments import Instruments


class DecisionMetrics:
    """The metrics of one application, made by ``make``."""

    def __init__(self, make: Instruments) -> None:
        self._target = make.gauge("manta_autoscaling_target_replicas", "Replicas that a tier should have.", ("tier",))
        self._ready = make.gauge("manta_autoscaling_ready_replicas", "Replicas that serve.", ("tier",))
        self._needed = make.gauge("manta_autoscaling_needed_replicas", "Replicas that the load needs.", ("tier",))
        self._cold_start = make.gauge(
            "manta_autoscaling_cold_start_s", "Seconds until a new replica serves.", ("tier",)
        )
        self._waiting = make.gauge(
            "manta_autoscaling_waiting_requests", "Requests that wait for a tier at zero to start.", ("tier",)
        )
        self._burn = make.gauge(
            "manta_autoscaling_budget_burn", "Requests late or refused lately, by those that may be.", ("tier",)
        )
        self._decisions = make.counter("manta_autoscaling_decisions", "Decisions by reason.", ("tier", "reason"))
        why_not = "manta_autoscaling_why_not", "Decisions by why there were not more or fewer."
        self._why_not = make.counter(*why_not, ("tier", "direction", "reason"))

    def count(self, decision: TierDecision) -> None:
        """Counts a decision, and sets the gauges of its tier."""
        tier, numbers = {"tier": decision.tier}, decision.numbers
        self._target.set(decision.target, tier)
        self._ready.set(numbers.get("ready", 0), tier)
        self._needed.set(numbers.get("need", 0), tier)
        self._cold_start.set(numbers.get("cold_start_s", 0), tier)
        self._waiting.set(numbers.get("waiting_room", 0), tier)
        if "burn" in numbers:  # a follower has no objectives
            self._burn.set(numbers["burn"], tier)
        self._decisions.inc(1, {**tier, "reason": decision.reason.value})
        self._why_not.inc(1, {**tier, "direction": "more", "reason": decision.why_not_more.reason.value})
        self._why_not.inc(1, {**tier, "direction": "fewer", "reason": decision.why_not_fewer.reason.value})
