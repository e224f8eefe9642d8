"""``python -m load_tests.cache_cost``: its questions, and a run against a router with a Redis."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from load_tests.access.processes import ADMIN_KEY, CONFIG, redis_server, routers
from load_tests.cache_cost import main, questions


@pytest.fixture
def asked(tmp_path: Path) -> Path:
    path = tmp_path / "questions.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        for number in range(40):
            file.write(json.dumps({"text_a": f"question {number % 30}"}) + "\n")
    return path


def test_a_question_is_in_one_block_and_the_draw_is_repeatable(asked: Path) -> None:
    blocks = list(questions(asked, 3, 10, seed=1))
    assert {text for block in blocks for text in block} == {f"question {number}" for number in range(30)}
    assert blocks == list(questions(asked, 3, 10, seed=1)) != list(questions(asked, 3, 10, seed=2))


def test_too_few_questions_are_refused(asked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--questions", str(asked), "--pairs", "3", "--block", "10"]) == 2
    assert "has 30 questions, and 40 are needed" in capsys.readouterr().err


def test_both_halves_are_measured_and_none_is_a_hit(
    asked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {**CONFIG, "cache": {"enabled": True}}
    with (
        redis_server(tmp_path / "redis") as redis,
        routers(1, tmp_path, {"url": redis.url, "timeout_s": 2.0}, config, step_ms=0, stop=True) as (url,),
    ):
        arguments = ["--url", url, "--key", ADMIN_KEY, "--questions", str(asked), "--pairs", "2", "--block", "8"]
        assert main([*arguments, "--tokens", "4", "--streams", "4"]) == 0
    printed = capsys.readouterr().out
    assert "hits: 0 of 24" in printed
    assert "median of 2 pairs" in printed
