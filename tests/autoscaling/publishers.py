"""A publisher of decisions that stores nothing."""

from __future__ import annotations

from typing import Any, cast

from cluster.autoscaling.decision_publisher import DecisionPublisher
from cluster.autoscaling.decision_store import DecisionStore
from cluster.autoscaling.forecast_store import ForecastStore
from cluster.autoscaling.waiting_room_store import WaitingRoomStore


class Stored:
    """Takes decisions and forecasts, and knows no pin, no request that waits and no season."""

    def pins(self) -> tuple[()]:
        return ()

    def write(self, what: object) -> None:
        pass

    def read(self) -> dict[str, Any]:
        return {}


def publisher(application: str, silent_s: float = 60.0, forecasts: ForecastStore | None = None) -> DecisionPublisher:
    stored = Stored()
    return DecisionPublisher(
        application,
        cast("DecisionStore", stored),
        cast("WaitingRoomStore", stored),
        silent_s,
        forecasts or cast("ForecastStore", stored),
    )
