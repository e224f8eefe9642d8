"""``ForecastStore``: the daily seasons of all tiers, in the key-value store of Ray's head (GCS).

A season takes a whole day to learn. It is in the memory of Serve's controller, which is restarted now and then. Level
and trend are learnt anew within minutes, and are not stored.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from math import isfinite
from typing import Any

from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put

from cluster.autoscaling.decision_store import NAMESPACE
from cluster.autoscaling.forecast import MIN_SEASON, Forecast
from cluster.autoscaling.forecast_memory import Forecasts
from cluster.autoscaling.forecast_scaling import ForecastScaling

logger = logging.getLogger("ray.serve")

SERIES = ("rate", "prompt_tokens", "output_tokens")
PARTS = ("season", "sums", "visits")


class ForecastStore:
    """The forecasts of one application. The methods block. They raise RayError, RpcError or OSError if Ray's key-value
    store fails."""

    def __init__(self, application: str) -> None:
        self._key = f"autoscaling/{application}/forecasts"

    def write(self, forecasts: Forecasts) -> None:
        """Stores the seasons of all tiers."""
        _internal_kv_put(self._key, json.dumps(document_of(forecasts)), overwrite=True, namespace=NAMESPACE)

    def read(self) -> Forecasts:
        """Returns the stored forecasts, as ``read_forecasts`` does."""
        return read_forecasts(_internal_kv_get(self._key, namespace=NAMESPACE) or b"{}")


def document_of(forecasts: Forecasts) -> dict[str, Any]:
    """Returns the seasons as JSON, by tier and series."""
    return {
        tier: {name: {part: getattr(getattr(each, name), part) for part in PARTS} for name in SERIES}
        for tier, each in forecasts.items()
    }


def read_forecasts(stored: bytes) -> Forecasts:
    """Returns stored forecasts, which know the season and nothing of now; {}, after a warning in the log, if they
    cannot be read, such as another release's."""
    try:
        return {str(tier): _forecasts(document) for tier, document in json.loads(stored).items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        logger.warning("Stored forecasts cannot be read, and the season is learnt anew: %s", type(error).__name__)
        return {}


def _forecasts(document: Mapping[str, Any]) -> ForecastScaling:
    rate, prompt_tokens, output_tokens = (_forecast(document[name]) for name in SERIES)
    return ForecastScaling(rate=rate, prompt_tokens=prompt_tokens, output_tokens=output_tokens)


def _forecast(document: Mapping[str, Any]) -> Forecast:
    """Raises KeyError, TypeError or ValueError if ``document`` is no season."""
    parts = {part: tuple(map(float, document[part])) for part in PARTS}
    season, sums, visits = parts.values()
    sound = all(isfinite(each) and each >= 0 for part in parts.values() for each in part)
    if not sound or len(sums) != len(visits) or (season and (sums or min(season) < MIN_SEASON)):
        raise ValueError("no season")
    return Forecast(season=season, sums=sums, visits=visits)
