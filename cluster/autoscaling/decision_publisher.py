"""``DecisionPublisher``: tells operators what the autoscaler decides: in the log, in metrics (``DecisionMetrics``), and
in Ray's key-value store for ``manta scale``."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from typing import ClassVar

from cluster.autoscaling.decision import Decisions
from cluster.autoscaling.decision_log import DecisionLog
from cluster.autoscaling.decision_metrics import DecisionMetrics
from cluster.autoscaling.decision_store import DecisionStore
from cluster.autoscaling.forecast_memory import Forecasts
from cluster.autoscaling.forecast_store import ForecastStore
from cluster.autoscaling.snapshot import Pin, WaitingRoom
from cluster.autoscaling.waiting_room_store import SeenRooms, WaitingRoomStore
from cluster.autoscaling.warm_replica_store import WarmReplicas, WarmReplicaStore
from cluster.telemetry.config import TelemetryConfig
from cluster.telemetry.instruments import RayInstruments, SentInstruments
from cluster.telemetry.make_otlp_instruments import make_otlp_instruments

logger = logging.getLogger("ray.serve")  # the log of Serve's controller, where this runs

LOOK_S = 0.25
"""Between two looks for requests that wait, while a tier is at zero."""
REMEMBER_S = 300.0
"""Between two times at which forecasts are stored: a third of one of 96 parts of the day."""
SILENT_S = 60.0
"""Seconds without a decision after which nothing is sent by OTLP any more: the application is gone. The SDK would send
the last numbers for ever."""


class DecisionPublisher:
    """Publishes the decisions for one application, as metrics, log lines and records in ``store``. ``waiting`` has the
    waiting rooms of tiers at zero. Both stores are those of ``application`` by default. They are read and written on a
    thread of its own, since they may block. Metrics are sent by OTLP, too, after ``send_metrics_by``. The thread begins
    and ends that, since OpenTelemetry's SDK takes a while to load, and an error there must stop no decision."""

    _publishers: ClassVar[dict[str, DecisionPublisher]] = {}
    """Those of this process, by application: class state for the same reason as ``ApplicationScalers``."""

    def __init__(
        self,
        application: str,
        store: DecisionStore | None = None,
        waiting: WaitingRoomStore | None = None,
        silent_s: float = SILENT_S,
        forecasts: ForecastStore | None = None,
    ) -> None:
        self._application, self._silent_s = application, silent_s
        self._warm_store = WarmReplicaStore(application)
        self._store = store or DecisionStore(application)
        self._forecast_store = forecasts or ForecastStore(application)
        self._waiting_rooms, self._seen = waiting or WaitingRoomStore(application), SeenRooms()
        self._rooms: Mapping[str, WaitingRoom] = {}
        self._telemetry = TelemetryConfig()
        self._asked = self._telemetry  # the settings of which the thread knows
        self._counted = RayInstruments(application)  # the sums go on when another receiver is named
        self._metrics = DecisionMetrics(self._counted)
        self._log = DecisionLog()
        self._sending: TelemetryConfig | None = None  # the settings by which metrics are sent, or could not be
        self._sent: SentInstruments | None = None
        self._changed = threading.Condition()
        self._latest: Decisions | None = None  # not stored yet
        self._decided_at = time.monotonic()
        self._latest_warm: WarmReplicas | None = None  # not stored yet
        self._stored_warm: WarmReplicas | None = None
        self._pins: tuple[Pin, ...] = ()
        self._forecasts: Forecasts = {}
        self._latest_forecasts: Forecasts | None = None
        self._remembered_at = time.monotonic()
        self._is_read = False
        self._failed = False
        self._publishers[application] = self
        threading.Thread(target=self._run, name="manta-decisions", daemon=True).start()

    def publish(self, decisions: Decisions) -> None:
        """Counts and logs the decisions, and has them stored soon. Never blocks."""
        metrics = self._metrics
        for decision in (*decisions.tiers.values(), *decisions.followers.values()):
            metrics.count(decision)
        for line in self._log.lines(decisions):
            logger.info("%s", line)
        with self._changed:
            self._latest, self._decided_at = decisions, time.monotonic()
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

    def is_read(self) -> bool:
        """Returns whether what was stored has been read: pins, what waits, and forecasts."""
        return self._is_read

    def forecasts(self) -> Forecasts:
        """Returns the forecasts that were stored when this began; {} before they are read."""
        return self._forecasts

    def remember(self, forecasts: Forecasts) -> None:
        """Schedules ``forecasts`` to be stored with a later decision, every REMEMBER_S seconds. Never blocks."""
        self._latest_forecasts = forecasts

    def rooms(self) -> Mapping[str, WaitingRoom]:
        """Returns the waiting rooms of the tiers without replicas, by tier, summed over all routers. They are at most
        about LOOK_S seconds old while a tier is at zero."""
        return self._rooms

    @classmethod
    def send_metrics_by(cls, application: str, telemetry: TelemetryConfig) -> None:
        """Has the metrics of an application soon sent by these settings, if it has a publisher. Never blocks."""
        if (publisher := cls._publishers.get(application)) is None:
            return
        with publisher._changed:
            publisher._telemetry = telemetry
            publisher._changed.notify()

    @property
    def receiver(self) -> str | None:
        """The URL to which the next decision is sent by OTLP; None: to none."""
        return None if self._sent is None or self._sending is None else self._sending.metrics.endpoint

    def _send_by(self, telemetry: TelemetryConfig) -> None:
        """Begins to send by these settings, or ends it if they name no receiver or decisions come no more."""
        is_silent = time.monotonic() - self._decided_at >= self._silent_s
        sending = None if is_silent or telemetry.metrics.endpoint is None else telemetry
        if sending == self._sending:
            return
        former, self._sent = self._sent, None
        self._sending, self._metrics = sending, DecisionMetrics(self._counted)
        if former is not None:
            former.close(wait_s=0)  # the last numbers are exported meanwhile
        if sending is not None:
            self._begin_sending(sending)

    def _begin_sending(self, telemetry: TelemetryConfig) -> None:
        role = "autoscaler"
        try:
            sent = make_otlp_instruments(telemetry, role, role, self._application, self._counted)
            if sent is not None:
                self._metrics, self._sent = DecisionMetrics(sent), sent
        except Exception as error:  # noqa: BLE001 - whatever it is, decisions go on; the next settings try again
            logger.warning("Autoscaling: its metrics are not sent by OTLP: %r", error)

    def _run(self) -> None:
        asleep = False  # whether a tier is at zero
        self._read_stored()
        while True:
            with self._changed:
                self._changed.wait_for(self._is_behind, LOOK_S if asleep else self._silent_s)
                telemetry = self._asked = self._telemetry
                latest, self._latest = self._latest, None
                warm, self._latest_warm = self._latest_warm, None
            self._send_by(telemetry)
            asleep = asleep if latest is None else any(each.target == 0 for each in latest.tiers.values())
            if latest is not None or warm is not None or asleep:
                self._exchange(latest, warm)

    def _is_behind(self) -> bool:
        """Returns whether something is not stored yet, or the settings are new."""
        return self._latest is not None or self._latest_warm is not None or self._telemetry is not self._asked

    def _read_stored(self) -> None:
        """Reads what the first decision needs. If that fails, it is made without, and ``_exchange`` tries again."""
        try:
            self._rooms = self._read_rooms(time.monotonic())
            self._pins = self._store.pins()
            self._read_forecasts()
        except Exception as error:  # noqa: BLE001 - whatever Ray raises, decisions go on
            logger.warning("Autoscaling: pins and forecasts cannot be read: %s", error)

    def _read_forecasts(self) -> None:
        self._forecasts = self._forecast_store.read()
        self._is_read = True

    def _store_forecasts(self) -> None:
        if self._latest_forecasts is not None and time.monotonic() - self._remembered_at >= REMEMBER_S:
            self._forecast_store.write(self._latest_forecasts)
            self._remembered_at = time.monotonic()

    def _exchange(self, decisions: Decisions | None, warm: WarmReplicas | None) -> None:
        """Reads what waits and, with decisions, the pins, and stores the decisions, and the warm replicas if they are
        given. If the store does not answer, all stay as they are."""
        try:
            self._rooms = self._read_rooms(time.monotonic())
            if decisions is not None:
                self._pins = self._store.pins()
                self._store.write(decisions)
            if not self._is_read:
                self._read_forecasts()
            if warm is not None:
                self._warm_store.write(warm)
                self._stored_warm = warm
            self._store_forecasts()
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
