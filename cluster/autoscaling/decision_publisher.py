"""``DecisionPublisher``: tells operators what the autoscaler decides: in the log, in metrics, and in Ray's key-value
store for ``manta scale``.

======================================  =====================  =======================================================
gauge                                   labels                 unit
======================================  =====================  =======================================================
ray_manta_autoscaling_target_replicas   tier                   replicas that the tier should have
ray_manta_autoscaling_ready_replicas    tier                   replicas that serve
ray_manta_autoscaling_needed_replicas   tier                   replicas that the load needs, as a fraction
ray_manta_autoscaling_cold_start_s      tier                   seconds from the order of a replica until it serves
ray_manta_autoscaling_waiting_requests  tier                   requests that wait for a first replica
======================================  =====================  =======================================================

The deployments beside the tiers (``autoscaling.followers``) have the first three, with their names as ``tier``.

``ray_manta_autoscaling_decisions_total`` counts decisions by ``tier`` and ``reason``, one per control interval. Each
series has the label ``application``, too."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping

from cluster.autoscaling.decision import Decisions, TierDecision
from cluster.autoscaling.decision_store import DecisionStore
from cluster.autoscaling.explain import explain
from cluster.autoscaling.snapshot import Pin, WaitingRoom
from cluster.autoscaling.waiting_room_store import SeenRooms, WaitingRoomStore
from cluster.autoscaling.warm_replica_store import WarmReplicas, WarmReplicaStore
from cluster.telemetry.instruments import RayInstruments

logger = logging.getLogger("ray.serve")  # the log of Serve's controller, where this runs

LOOK_S = 0.25
"""Between two looks for requests that wait, while a tier is at zero."""


class DecisionPublisher:
    """Publishes the decisions for one application, as metrics, log lines and records in ``store``. ``waiting`` has the
    waiting rooms of tiers at zero. Both stores are those of ``application`` by default. They are read and written on a
    thread of its own, since they may block."""

    def __init__(
        self, application: str, store: DecisionStore | None = None, waiting: WaitingRoomStore | None = None
    ) -> None:
        self._warm_store = WarmReplicaStore(application)
        self._store, made = store or DecisionStore(application), RayInstruments(application)
        self._waiting_rooms, self._seen = waiting or WaitingRoomStore(application), SeenRooms()
        self._rooms: Mapping[str, WaitingRoom] = {}
        self._target = made.gauge("manta_autoscaling_target_replicas", "Replicas that a tier should have.", ("tier",))
        self._ready = made.gauge("manta_autoscaling_ready_replicas", "Replicas that serve.", ("tier",))
        self._needed = made.gauge("manta_autoscaling_needed_replicas", "Replicas that the load needs.", ("tier",))
        self._cold_start = made.gauge(
            "manta_autoscaling_cold_start_s", "Seconds until a new replica serves.", ("tier",)
        )
        self._waiting = made.gauge(
            "manta_autoscaling_waiting_requests", "Requests that wait for a tier at zero to start.", ("tier",)
        )
        self._count = made.counter("manta_autoscaling_decisions", "Decisions by reason.", ("tier", "reason"))
        self._changed = threading.Condition()
        self._latest: Decisions | None = None  # not stored yet
        self._latest_warm: WarmReplicas | None = None  # not stored yet
        self._stored_warm: WarmReplicas | None = None
        self._pins: tuple[Pin, ...] = ()
        self._failed = False
        threading.Thread(target=self._run, name="manta-decisions", daemon=True).start()

    def publish(self, decisions: Decisions) -> None:
        """Counts and logs the decisions, and has them stored soon. Never blocks."""
        for decision in (*decisions.tiers.values(), *decisions.followers.values()):
            self._count_one(decision)
        with self._changed:
            self._latest = decisions
            self._changed.notify()

    def warm(self, warm: WarmReplicas) -> None:
        """Has the ids of the warm replicas, by tier, stored soon if they have changed. Never blocks."""
        if warm == self._stored_warm:
            return
        with self._changed:
            self._latest_warm = warm
            self._changed.notify()

    def pins(self) -> tuple[Pin, ...]:
        """Returns the pins as they were at the last decision."""
        return self._pins

    def rooms(self) -> Mapping[str, WaitingRoom]:
        """Returns the waiting rooms of the tiers without replicas, by tier, summed over all routers. They are at most
        about LOOK_S seconds old while a tier is at zero."""
        return self._rooms

    def _count_one(self, decision: TierDecision) -> None:
        tier, numbers = {"tier": decision.tier}, decision.numbers
        self._target.set(decision.target, tier)
        self._ready.set(numbers.get("ready", 0), tier)
        self._needed.set(numbers.get("need", 0), tier)
        self._cold_start.set(numbers.get("cold_start_s", 0), tier)
        self._waiting.set(numbers.get("waiting_room", 0), tier)
        self._count.inc(1, {**tier, "reason": decision.reason.value})
        if decision.target != decision.previous:
            logger.info("Autoscaling: %s", explain(decision).replace("\n", " | "))

    def _run(self) -> None:
        asleep = False  # whether a tier is at zero
        while True:
            with self._changed:
                self._changed.wait_for(self._is_behind, LOOK_S if asleep else None)
                latest, self._latest = self._latest, None
                warm, self._latest_warm = self._latest_warm, None
            asleep = asleep if latest is None else any(each.target == 0 for each in latest.tiers.values())
            self._exchange(latest, warm)

    def _is_behind(self) -> bool:
        """Returns whether something is not stored yet."""
        return self._latest is not None or self._latest_warm is not None

    def _exchange(self, decisions: Decisions | None, warm: WarmReplicas | None) -> None:
        """Reads what waits and, with decisions, the pins, and stores the decisions, and the warm replicas if they are
        given. If the store does not answer, all stay as they are."""
        try:
            self._rooms = self._read_rooms(time.monotonic())
            if decisions is not None:
                self._pins = self._store.pins()
                self._store.write(decisions)
            if warm is not None:
                self._warm_store.write(warm)
                self._stored_warm = warm
            self._failed = False
        except Exception as error:  # noqa: BLE001 - whatever Ray raises, the next decision tries again
            if not self._failed:
                logger.warning("Autoscaling: decisions cannot be stored for `manta scale`: %s", error)
            self._failed = True

    def _read_rooms(self, at_s: float) -> Mapping[str, WaitingRoom]:
        """Returns what waits. Deletes what routers have left that died long ago."""
        rooms = self._seen.rooms(self._waiting_rooms.read(), at_s)
        for key in self._seen.forgotten(at_s):
            self._waiting_rooms.delete(key)
        return rooms
