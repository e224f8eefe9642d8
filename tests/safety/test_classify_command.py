"""``python -m safety classify``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from safety.__main__ import app
from tests.safety.artefacts import write_classifier


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classifier(tmp_path_factory.mktemp("classifier"))


def test_each_row_gets_its_scores_and_keeps_its_fields(model: Path, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"text": "hi", "id": 7}, {"text": "the bomb " * 50}, {"text": ""}]
    source, target, summary = tmp_path / "in.jsonl", tmp_path / "out.jsonl", tmp_path / "summary.json"
    source.write_text("\n".join(map(json.dumps, rows)) + "\n\n", encoding="utf-8")
    arguments = ["classify", "--input", source, "--output", target, "--model", model, "--json", summary]
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    assert result.exit_code == 0, result.output
    written = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    assert [{key: row[key] for key in rows[place]} for place, row in enumerate(written)] == rows
    for row in written:
        assert set(row["scores"]) == {"violence", "harmful"}
        assert all(0 <= value <= 1 for value in (*row["scores"].values(), row["injection"]))
        assert row["flagged"] == any(value >= 0.7 for value in (*row["scores"].values(), row["injection"]))
    figures = json.loads(summary.read_text(encoding="utf-8"))
    assert figures["texts"] == 3
    assert figures["windows"] > 3
    assert figures["flagged"] == sum(row["flagged"] for row in written)


@pytest.mark.parametrize(
    ("line", "message"), [("{", "line 1: no JSON"), ('{"texts": "a"}', 'line 1: must be an object with "text"')]
)
def test_a_wrong_line_is_named(model: Path, line: str, message: str) -> None:
    arguments = ["classify", "--input", "-", "--output", "-", "--model", str(model)]
    result = CliRunner().invoke(app, arguments, input=line)
    assert result.exit_code == 1
    assert message in result.output


@pytest.mark.parametrize(
    ("more", "message"),
    [([], "describe none"), (["--alone"], "--alone and --second-opinion exclude each other")],
    ids=["files", "alone"],
)
def test_a_second_opinion_that_would_not_be_asked_is_an_error(
    model: Path, tmp_path: Path, more: list[str], message: str
) -> None:
    arguments = ["classify", "--input", "-", "--output", "-", "--model", str(model)]
    arguments += ["--second-opinion", str(tmp_path / "base.gguf"), *more]
    result = CliRunner().invoke(app, arguments, input='{"text": "a"}')
    assert result.exit_code == 1
    assert message in result.output


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    arguments = ["classify", "--input", "-", "--output", "-", "--model", str(tmp_path / "none")]
    result = CliRunner().invoke(app, arguments, input='{"text": "a"}')
    assert result.exit_code == 1
    assert "config.json" in result.output
