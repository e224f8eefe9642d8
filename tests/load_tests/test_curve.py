"""The curve of accuracy against compute: read from a run, compared with every alternative, judged by the target."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from load_tests.quality.curve.__main__ import main
from load_tests.quality.curve.comparison import make_curve, read_run
from load_tests.quality.item import read_held_out
from router.tiers.quality_forecast import Forecaster

TIERS = ("fast", "balanced", "frontier")
SIZES = {"fast": 1, "balanced": 4, "frontier": 10}
LONG = Forecaster(TIERS, (3.0, 3.0, 3.0), {"digits=4": (-6.0, -6.0, 0.0)}, {})
"""Foretells what is so: long numbers are for the largest tier only."""


@pytest.fixture
def held_out(tmp_path: Path) -> Path:
    """Ten questions, four of them with long numbers."""
    path = tmp_path / "heldout.jsonl"
    lines = [
        {
            "id": str(number),
            "family": "arithmetic",
            "level": 1,
            "messages": [{"role": "user", "content": f"What is {1000 if number < 4 else 1} + {number}?"}],
            "answer": "42",
        }
        for number in range(10)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def run_of(held_out: Path) -> dict[str, Any]:
    """All tiers, as ``load_tests.quality --json`` writes them."""
    rows = [
        {
            "model": tier,
            "id": str(number),
            "right": number >= 4 or tier == "frontier",
            "prompt_tokens": 15,
            "completion_tokens": 5,
            "problem": None,
        }
        for tier in TIERS
        for number in range(10)
    ]
    sha256 = hashlib.sha256(held_out.read_bytes()).hexdigest()
    return {"parameters": SIZES, "sets": {"tasks": {"sha256": sha256, "rows": rows}}}


def test_a_good_forecast_gets_everything_right_for_less(held_out: Path) -> None:
    curve = make_curve(read_run(run_of(held_out), read_held_out(held_out), TIERS), LONG)

    assert {name: point.accuracy for name, point in curve.tiers.items()} == {
        "fast": 0.6,
        "balanced": 0.6,
        "frontier": 1.0,
    }
    assert (curve.best, curve.reference.compute) == ("frontier", 1)
    assert curve.at(0.0).point == curve.oracle
    assert curve.oracle.accuracy == 1
    assert curve.oracle.compute == pytest.approx(0.4 + 0.6 * 0.1)
    assert curve.at(1.0).point == curve.tiers["fast"]
    assert [setting.tolerance for setting in curve.settings[:: len(curve.settings) - 1]] == [0, 1]


def test_a_dear_tier_that_knows_nothing_of_the_tasks_is_no_measure(held_out: Path) -> None:
    run = run_of(held_out)
    run["parameters"] = {**SIZES, "general": 100}
    rows = run["sets"]["tasks"]["rows"]
    rows += [{**row, "model": "general", "right": False} for row in rows if row["model"] == "fast"]
    tiers = (*TIERS, "general")
    forecaster = Forecaster(tiers, (3.0, 3.0, 3.0, -3.0), {"digits=4": (-6.0, -6.0, 0.0, 0.0)}, {})

    curve = make_curve(read_run(run, read_held_out(held_out), tiers), forecaster)

    assert (curve.best, curve.reference.compute) == ("frontier", 1)
    assert curve.tiers["general"].compute == pytest.approx(10)
    assert curve.at(0.0).point.accuracy == 1


def test_the_verdict_and_the_picture(held_out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, forecast, plot = tmp_path / "run.json", tmp_path / "auto.json", tmp_path / "new" / "curve.png"
    run.write_text(json.dumps(run_of(held_out)))
    forecast.write_text(LONG.to_json())
    common = [str(run), "--forecast", str(forecast), "--set", str(held_out)]

    assert main([*common, "--plot", str(plot)]) == 0
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert "met: at least 95%" in capsys.readouterr().out
    assert main([*common, "--tolerance", "1"]) == 1
    assert "missed: at least 95%" in capsys.readouterr().out
    assert main([*common, "--keep", "1.2"]) == 1
    assert "no tolerance keeps 120%" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"sha256": "0"}, "another held-out set"),
        ({"rows": []}, "no item was answered"),
        ({"rows": [{"model": "fast"}]}, "no run of"),
    ],
)
def test_a_run_that_cannot_be_compared_is_refused(held_out: Path, change: dict[str, Any], complaint: str) -> None:
    run = run_of(held_out)
    run["sets"]["tasks"] |= change
    with pytest.raises(ValueError, match=complaint):
        read_run(run, read_held_out(held_out), TIERS)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [({"parameters": {"fast": 1}}, "does not know the size of balanced, frontier"), ({"sets": {}}, "no run of")],
)
def test_a_run_without_sizes_or_without_tasks_is_refused(
    held_out: Path, change: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        read_run(run_of(held_out) | change, read_held_out(held_out), TIERS)


def test_a_failed_request_is_not_a_wrong_answer(held_out: Path) -> None:
    run = run_of(held_out)
    run["sets"]["tasks"]["rows"][3]["problem"] = "timed out"
    with pytest.raises(ValueError, match="1 requests failed"):
        read_run(run, read_held_out(held_out), TIERS)


def test_items_that_a_tier_was_not_asked_are_left_out(held_out: Path) -> None:
    run = run_of(held_out)
    tasks = run["sets"]["tasks"]
    tasks["rows"] = [row for row in tasks["rows"] if row["id"] != "7"]
    assert len(read_run(run, read_held_out(held_out), TIERS).items) == 9


def test_what_cannot_be_run_says_why(held_out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([str(tmp_path / "none.json"), "--forecast", str(tmp_path / "none.json"), "--set", str(held_out)])
    assert stopped.value.code == 2
    assert "none.json" in capsys.readouterr().err
