"""The measurement of waits in the classifier's queue."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from load_tests.safety.queue_waits import SCENARIOS, main, quantiles


def test_it_prints_and_writes_the_waits_of_each_scenario(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "made" / "waits.json"

    assert main(["--seconds", "5", "--json", str(out)]) == 0

    rows = json.loads(out.read_text(encoding="utf-8"))
    assert [row["scenario"] for row in rows] == [each.name for each in SCENARIOS]
    first = rows[0]["waits_ms"]["first checks of short prompts"]
    assert 5 <= first["calls"] <= 40  # four a second
    assert 0 <= first["p50"] <= first["p99"]
    assert all(each.name in capsys.readouterr().out for each in SCENARIOS[:1])


def test_the_same_seed_gives_the_same_waits(tmp_path: Path) -> None:
    found = []
    for name in "ab":
        main(["--seconds", "3", "--seed", "7", "--json", str(tmp_path / name)])
        found.append((tmp_path / name).read_text(encoding="utf-8"))

    assert found[0] == found[1]


def test_quantiles_are_in_milliseconds() -> None:
    assert quantiles({"kind": [0.001, 0.002, 0.003]})["kind"] == {"calls": 3, "p50": 2.0, "p99": 3.0}
