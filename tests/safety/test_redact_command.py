"""``python -m safety redact``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from safety.redact_command import HELP, redact

APP = typer.Typer()
APP.command("redact", help=HELP)(redact)


def run(tmp_path: Path, lines: str, *options: str) -> tuple[int, str, list[dict[str, object]]]:
    """The exit status, stderr and the rows that the command writes."""
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(lines, encoding="utf-8")
    result = CliRunner().invoke(APP, ["--input", str(source), "--output", str(target), *options])
    rows = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()] if target.exists() else []
    return result.exit_code, result.stderr, rows


def test_entities_and_the_redacted_text_are_written(tmp_path: Path) -> None:
    text = "Ça: jane@example.com, AKIAIOSFODNN7EXAMPLE"
    summary = tmp_path / "summary.json"

    status, _, rows = run(tmp_path, json.dumps({"text": text, "id": 7}) + "\n\n", "--json", str(summary))

    assert status == 0
    assert rows == [
        {
            "text": text,
            "id": 7,
            "redacted": "Ça: <EMAIL_ADDRESS>, <AWS_ACCESS_KEY>",
            "entities": [
                {"type": "EMAIL_ADDRESS", "start": 4, "end": 20},
                {"type": "AWS_ACCESS_KEY", "start": 22, "end": 42},
            ],
        }
    ]
    figures = json.loads(summary.read_text())
    assert (figures["texts"], figures["characters"]) == (1, len(text))
    assert figures["entities"] == {"AWS_ACCESS_KEY": 1, "EMAIL_ADDRESS": 1}


def test_only_the_kinds_that_are_asked_for_are_redacted(tmp_path: Path) -> None:
    _, _, rows = run(tmp_path, '{"text": "jane@example.com 192.168.1.1"}', "--kind", "IP_ADDRESS")

    assert rows[0]["redacted"] == "jane@example.com <IP_ADDRESS>"


@pytest.mark.parametrize("line", ["not json", "[]", '{"text": 1}', "{}"])
def test_a_wrong_line_is_named(tmp_path: Path, line: str) -> None:
    status, error, _ = run(tmp_path, '{"text": "ok"}\n' + line)

    assert status == 1
    assert "redact: line 2:" in error


def test_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    status, error, _ = run(tmp_path, '{"text": "ok"}', "--kind", "SHOE_SIZE")

    assert status == 1
    assert "SHOE_SIZE" in error
