"""``TierAutoscaler``: the autoscaling policy of a tier's deployment in Ray Serve. It runs in Serve's controller.

Serve would let an application have one policy for all deployments, but reads that from the config file alone: a policy
of the deployment comes with the tier's settings, however the application is deployed. The policies of the tiers
of one application share an ``ApplicationScaler``, so that there is one decision for all.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from typing import Any

from ray.serve.config import AutoscalingContext

from cluster.autoscaling.application_scaler import ApplicationScaler, ApplicationScalers
from cluster.autoscaling.config import AutoscalingConfig
from cluster.autoscaling.decision_publisher import DecisionPublisher
from cluster.autoscaling.snapshot_collector import ReplicaView, TierView
from cluster.telemetry.config import LogsConfig, TelemetryConfig
from cluster.telemetry.logs import controller_logs

logger = logging.getLogger("ray.serve")

LOG_AGAIN_S = 300.0
"""Seconds after which an error that lasts is logged again."""


class TierAutoscaler:
    """The policy of one tier. ``settings`` are those of the application as JSON, and ``gpus`` the GPUs of a replica by
    tier. ``logs`` are those of the telemetry, as JSON; None: the controller's log stays as it is. ``sending`` are the
    settings by which metrics are sent by OTLP (``TelemetryConfig.sending``); None: they are not.

    Serve stops autoscaling all applications for as long as a policy raises. So an error is logged, and the target
    stays.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        gpus: Mapping[str, float],
        logs: Mapping[str, Any] | None = None,
        sending: Mapping[str, Any] | None = None,
    ) -> None:
        if logs is not None:
            controller_logs(LogsConfig.model_validate(logs))
        self._settings = settings
        self._gpus = dict(gpus)
        self._sending = sending or {}
        self._scaler: ApplicationScaler | None = None
        self._logged = ("", -math.inf)  # the last error that was logged, and when, by the monotonic clock

    def __call__(self, context: AutoscalingContext) -> tuple[int, dict[str, Any]]:
        """Returns the target. Serve calls it in each round of its control loop, ten times a second, and again at
        will."""
        target = int(context.target_num_replicas)
        try:
            scaler = self._scaler or self._connect(context.app_name or "")
            now_s, unix_s = time.monotonic(), time.time()  # the time of day may be set, and is for people and schedules
            target = scaler.target(context.deployment_name, target, lambda: self._read(context), now_s, unix_s)
        except Exception as error:  # noqa: BLE001 - see above
            self._log(context, error)
        # Serve keeps what is returned here and adds to it, so it must be a new object each time.
        return target, {}

    def _read(self, context: AutoscalingContext) -> TierView | None:
        """Returns the tier, or None if Serve's metrics of it cannot be read: other tiers are decided all the same."""
        try:
            return view_of(context)
        except Exception as error:  # noqa: BLE001 - see above
            self._log(context, error)
            return None

    def _log(self, context: AutoscalingContext, error: Exception) -> None:
        """Logs an error, unless it is the last one again within LOG_AGAIN_S: Serve asks ten times a second."""
        now_s, what = time.monotonic(), repr(error)
        if what != self._logged[0] or now_s - self._logged[1] >= LOG_AGAIN_S:
            logger.error("Autoscaling of %s fails; its target stays", context.deployment_name, exc_info=error)
            self._logged = (what, now_s)

    def _connect(self, application: str) -> ApplicationScaler:
        """Returns the scaler of the application, with these settings."""
        config = AutoscalingConfig.model_validate(self._settings)

        def make() -> ApplicationScaler:
            publisher = DecisionPublisher(application)
            scaler = ApplicationScaler(
                config, self._gpus, publisher.publish, publisher.pins, publisher.rooms, publisher.warm
            )
            # As below: a controller that began with an older release has no such memory.
            if (remember_in := getattr(scaler, "remember_in", None)) is not None:
                remember_in(publisher)
            return scaler

        self._scaler = ApplicationScalers.of(application, make)
        self._scaler.configure(config, self._gpus)
        # This class is of the release that was deployed, and the controller has imported that with which Ray began.
        if (send_metrics_by := getattr(DecisionPublisher, "send_metrics_by", None)) is not None:
            send_metrics_by(application, TelemetryConfig.model_validate(self._sending))
        return self._scaler


def view_of(context: AutoscalingContext) -> TierView:
    """Returns the tier as Serve's ``context`` has it. Of each replica, the last report counts."""
    reports: dict[str, tuple[float, dict[str, float]]] = {}
    for name, by_replica in (context.raw_metrics or {}).items():
        for replica, points in by_replica.items():
            if not points:
                continue
            last = points[-1]
            at_s, numbers = reports.get(replica.unique_id, (0.0, {}))
            if last.timestamp > at_s:
                reports[replica.unique_id] = (last.timestamp, {name: last.value})
            elif last.timestamp == at_s:
                numbers[name] = last.value
    replicas = tuple(
        ReplicaView(replica.unique_id, *reports.get(replica.unique_id, (None, {})))
        for replica in context.running_replicas
    )
    return TierView(context.deployment_name, int(context.target_num_replicas), replicas)
