"""``written_files``: the files below k8s/base that are written from this package."""

from __future__ import annotations

from pathlib import Path

import yaml

from k8s.monitoring.alerts import groups
from k8s.monitoring.dashboards import dashboards
from k8s.monitoring.rule import prometheus_rule

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "k8s" / "base" / "prometheus-rules.yaml"
DASHBOARDS = ROOT / "k8s" / "base" / "dashboards"
_HEADER = "# Written by `make k8s` from k8s/monitoring. Change that, not this file.\n"


def written_files() -> dict[Path, str]:
    """Returns the text of each file, by its path."""
    rules = yaml.safe_dump(prometheus_rule(groups()), sort_keys=False, width=120, allow_unicode=True)
    boards = {DASHBOARDS / f"{each.uid}.json": each.text() for each in dashboards()}
    return {RULES: _HEADER + rules, **boards}
