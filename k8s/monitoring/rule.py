"""``Alert`` and ``Recording``: rules of Prometheus, and the object PrometheusRule that holds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

RUNBOOK = "docs/operations.md"


class Severity(StrEnum):
    """Whom an alert reaches, and when."""

    PAGE = "page"  # someone, now
    TICKET = "ticket"  # someone, today
    NONE = "none"  # a machine


PAGE, TICKET, NONE = Severity.PAGE, Severity.TICKET, Severity.NONE


@dataclass(frozen=True, slots=True)
class Recording:
    """A series that Prometheus keeps."""

    name: str
    expression: str

    def rule(self) -> dict[str, Any]:
        """Returns the rule in Prometheus' format."""
        return {"record": self.name, "expr": self.expression}


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert. ``hold`` is how long its expression has to hold, as a duration of Prometheus. ``name`` is also the
    title of its section in RUNBOOK. ``labels`` are added to those of the expression."""

    name: str
    expression: str
    severity: Severity
    hold: str
    summary: str
    description: str
    labels: tuple[tuple[str, str], ...] = ()

    def rule(self) -> dict[str, Any]:
        """Returns the rule in Prometheus' format."""
        return {
            "alert": self.name,
            "expr": self.expression,
            "for": self.hold,
            "labels": {"severity": self.severity.value, **dict(self.labels)},
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                "runbook_url": f"{RUNBOOK}#{self.name.lower()}",
            },
        }


@dataclass(frozen=True, slots=True)
class Group:
    """Rules that are evaluated one after the other, every ``interval``."""

    name: str
    rules: Sequence[Alert | Recording]
    interval: str = "30s"

    def document(self) -> dict[str, Any]:
        """Returns the group in Prometheus' format."""
        return {"name": self.name, "interval": self.interval, "rules": [each.rule() for each in self.rules]}


def prometheus_rule(groups: Sequence[Group]) -> dict[str, Any]:
    """Returns the object of Prometheus' operator. ``release: prometheus`` is what kube-prometheus-stack looks for."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {
            "name": "manta",
            "labels": {"app.kubernetes.io/part-of": "manta", "release": "prometheus"},
        },
        "spec": {"groups": [each.document() for each in groups]},
    }
