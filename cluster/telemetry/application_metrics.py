"""``ApplicationMetrics``: makes the metrics of one Serve application, whose name is a label of all their series.

Two applications of a cluster may have tiers of the same name, and their nodes export the series of both.
"""

from __future__ import annotations

from ray import serve
from ray.serve.exceptions import RayServeException
from ray.util.metrics import Counter, Gauge

APPLICATION = "application"


def application_name() -> str:
    """Returns the name of the application that this process is a replica of; "" if it is none."""
    try:
        return serve.get_replica_context().app_name
    except RayServeException:
        return ""


class ApplicationMetrics:
    """Makes metrics with the label ``application``, which callers need not give."""

    def __init__(self, application: str) -> None:
        self._tags = {APPLICATION: application}

    def counter(self, name: str, description: str, labels: tuple[str, ...] = ()) -> Counter:
        """Returns a counter with the labels ``labels`` beside the application."""
        made = Counter(name, description, (APPLICATION, *labels))
        made.set_default_tags(self._tags)
        return made

    def gauge(self, name: str, description: str, labels: tuple[str, ...] = ()) -> Gauge:
        """Returns a gauge with the labels ``labels`` beside the application."""
        made = Gauge(name, description, (APPLICATION, *labels))
        made.set_default_tags(self._tags)
        return made
