"""The expressions of all rules and dashboards."""

from __future__ import annotations

import re
from collections.abc import Iterator

from k8s.monitoring.alerts import groups
from k8s.monitoring.dashboards import dashboards
from k8s.monitoring.rule import Alert, Recording

METRIC = re.compile(r"\b(ray_manta_\w+|manta:[\w:]+)(\{[^}]*\})?")


def alerts() -> list[Alert]:
    return [rule for group in groups() for rule in group.rules if isinstance(rule, Alert)]


def recordings() -> list[Recording]:
    return [rule for group in groups() for rule in group.rules if isinstance(rule, Recording)]


def expressions() -> Iterator[tuple[str, str]]:
    """Every expression of rules and dashboards, with where it is."""
    for alert in alerts():
        yield alert.name, alert.expression
    for rule in recordings():
        yield rule.name, rule.expression
    for board in dashboards():
        for panel in board.panels:
            yield from ((f"{board.uid}: {panel.title}", query.expression) for query in panel.queries)
        yield from (
            (f"{board.uid}: {each.label}", f"sum by ({each.label}) ({each.metric})") for each in board.variables
        )
