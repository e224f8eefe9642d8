"""``ForecastMemory``: where forecasts outlive Serve's controller. A port."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from cluster.autoscaling.forecast_scaling import ForecastScaling

Forecasts = Mapping[str, ForecastScaling]
"""The forecasts by tier."""


class ForecastMemory(Protocol):
    """No method blocks."""

    def is_read(self) -> bool:
        """Returns whether what was stored has been read."""
        ...

    def forecasts(self) -> Forecasts:
        """Returns the stored forecasts; {} if there are none, they are damaged, or they are not read yet."""
        ...

    def remember(self, forecasts: Forecasts) -> None:
        """Schedules the forecasts to be stored."""
        ...
