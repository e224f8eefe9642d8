"""``Dashboard``, ``Row`` and ``Panel``: a Grafana dashboard as data, and its JSON (Grafana 10.4 and later)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

SCHEMA = 39
WIDTH, HEIGHT = 24, 8  # units of Grafana's grid; a row of panels shares the width
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


class Unit(StrEnum):
    """Units by Grafana's ids."""

    NUMBER = "short"
    SECONDS = "s"
    SHARE = "percentunit"
    BYTES = "bytes"
    PER_SECOND = "cps"


@dataclass(frozen=True, slots=True)
class Query:
    """An expression and the name of its lines, with labels in double braces."""

    expression: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """A graph over time. ``description`` says what to look for."""

    title: str
    queries: Sequence[Query]
    unit: Unit = Unit.NUMBER
    description: str = ""
    stacked: bool = False
    limit: float | None = None  # drawn as a line: the objective

    def document(self, number: int, position: dict[str, int]) -> dict[str, Any]:
        """Returns the panel's JSON. ``number`` is unique within the dashboard."""
        steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
        if self.limit is not None:
            steps.append({"color": "red", "value": self.limit})
        custom = {
            "fillOpacity": 20 if self.stacked else 0,
            "showPoints": "never",
            "stacking": {"group": "A", "mode": "normal" if self.stacked else "none"},
            "thresholdsStyle": {"mode": "off" if self.limit is None else "line"},
        }
        return {
            "id": number,
            "type": "timeseries",
            "title": self.title,
            "description": self.description,
            "gridPos": position,
            "datasource": DATASOURCE,
            "fieldConfig": {
                "defaults": {
                    "unit": self.unit.value,
                    "min": 0,
                    "custom": custom,
                    "thresholds": {"mode": "absolute", "steps": steps},
                },
                "overrides": [],
            },
            "options": {
                "legend": {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": True},
                "tooltip": {"mode": "multi", "sort": "desc"},
            },
            "targets": [
                {
                    "refId": chr(ord("A") + index),
                    "datasource": DATASOURCE,
                    "expr": query.expression,
                    "legendFormat": query.legend,
                    "range": True,
                }
                for index, query in enumerate(self.queries)
            ],
        }


@dataclass(frozen=True, slots=True)
class Row:
    """Panels side by side under a title."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True, slots=True)
class Variable:
    """A choice above the panels: the values of ``label`` in the series ``metric``."""

    label: str
    metric: str

    def document(self) -> dict[str, Any]:
        query = f"label_values({self.metric}, {self.label})"
        return {
            "name": self.label,
            "label": self.label,
            "type": "query",
            "datasource": DATASOURCE,
            "query": {"query": query, "refId": "StandardVariableQuery"},
            "refresh": 2,
            "sort": 1,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
            "options": [],
            "hide": 0,
        }


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A dashboard. ``uid`` is its address, and the name of its file."""

    uid: str
    title: str
    rows: Sequence[Row]
    variables: Sequence[Variable] = ()

    @property
    def panels(self) -> Iterator[Panel]:
        """All panels of all rows."""
        return (panel for row in self.rows for panel in row.panels)

    def document(self) -> dict[str, Any]:
        """Returns the dashboard's JSON."""
        panels: list[dict[str, Any]] = []
        y = 0
        for row in self.rows:
            panels.append(_row(len(panels) + 1, row.title, y))
            y += 1
            width = WIDTH // len(row.panels)
            for index, panel in enumerate(row.panels):
                position = {"x": index * width, "y": y, "w": width, "h": HEIGHT}
                panels.append(panel.document(len(panels) + 1, position))
            y += HEIGHT
        datasource = {
            "name": "datasource",
            "label": "Prometheus",
            "type": "datasource",
            "query": "prometheus",
            "refresh": 1,
            "options": [],
            "hide": 0,
        }
        return {
            "uid": self.uid,
            "title": self.title,
            "tags": ["manta"],
            "schemaVersion": SCHEMA,
            "version": 1,
            "editable": False,
            "graphTooltip": 1,
            "timezone": "browser",
            "refresh": "30s",
            "time": {"from": "now-3h", "to": "now"},
            "templating": {"list": [datasource, *(each.document() for each in self.variables)]},
            "annotations": {"list": []},
            "links": [],
            "panels": panels,
        }

    def text(self) -> str:
        """Returns the dashboard's file."""
        return json.dumps(self.document(), indent=1, ensure_ascii=False) + "\n"


def _row(number: int, title: str, y: int) -> dict[str, Any]:
    position = {"x": 0, "y": y, "w": WIDTH, "h": 1}
    return {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": position, "panels": []}
