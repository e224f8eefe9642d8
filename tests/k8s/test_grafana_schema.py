"""Grafana's own types, where ``grafana-foundation-sdk`` is installed (no dependency), lose nothing of a dashboard."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from k8s.monitoring.dashboards import dashboards
from k8s.monitoring.grafana import Dashboard


def lost(wanted: object, found: object, at: str = "") -> Iterator[str]:
    """Where ``found`` lacks a part of ``wanted``, or has another one."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        for name, value in wanted.items():
            yield from lost(value, found.get(name, "nothing"), f"{at}.{name}")
    elif isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        for place, (one, other) in enumerate(zip(wanted, found, strict=True)):
            yield from lost(one, other, f"{at}[{place}]")
    elif wanted != found:
        yield f"{at}: {wanted!r} became {found!r}"


@pytest.mark.parametrize("board", dashboards(), ids=lambda board: board.uid)
def test_grafana_reads_all_of_a_dashboard(board: Dashboard) -> None:
    pytest.importorskip("grafana_foundation_sdk")
    types: Any = importlib.import_module("grafana_foundation_sdk.models.dashboard")
    encoder: Any = importlib.import_module("grafana_foundation_sdk.cog.encoder")
    importlib.import_module("grafana_foundation_sdk.cog.plugins").register_default_plugins()  # the kinds of panels
    document = json.loads(json.dumps(board.document()))
    read = types.Dashboard.from_json(document)
    again = json.loads(encoder.JSONEncoder(sort_keys=True).encode(read))
    assert list(lost(document, again)) == []
    document["panels"][1]["fieldConfig"]["defaults"]["custom"]["stackking"] = 1  # what it does not know, it loses
    assert list(
        lost(document, json.loads(encoder.JSONEncoder(sort_keys=True).encode(types.Dashboard.from_json(document))))
    )
