"""The table of failures in docs/operations.md names tests and faults that are there."""

from __future__ import annotations

import re
from pathlib import Path

from load_tests.chaos.faults import Fault

ROOT = Path(__file__).resolve().parents[1]
SECTION = (ROOT / "docs" / "operations.md").read_text("utf-8").partition("\n## What fails, and what is lost")[2]
TABLES = SECTION.partition("\n## ")[0]


def test_every_test_that_shows_a_failure_is_there() -> None:
    named = re.findall(r"[a-z_]+/test_\w+\.py", TABLES)

    assert len(named) > 30
    assert [name for name in named if not (ROOT / "tests" / name).is_file()] == []


def test_every_fault_that_was_measured_can_be_brought_about() -> None:
    named = re.findall(r"`--([a-z-]+ ?[a-z]*)`", TABLES)

    assert named
    assert [name for name in named if not any(fault.value.startswith(name) for fault in Fault)] == []
