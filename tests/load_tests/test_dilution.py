"""The dilution check: where the fact is planted, what each way keeps of it, and how a run is shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from load_tests.dilution.__main__ import main, options_of
from load_tests.dilution.haystack import plant
from load_tests.dilution.plot import draw
from load_tests.dilution.report import cells, document, table
from load_tests.dilution.trial import STRATEGIES, Trial, put
from router.prompts.prompt_size import prompt_characters


def words(text: str) -> int:
    return len(text.split())


@pytest.mark.parametrize("depth", [0.0, 0.25, 0.5, 1.0])
def test_a_fact_is_planted_once_at_its_depth(depth: float) -> None:
    planted = plant(7, 1_000, depth, words)

    assert planted == plant(7, 1_000, depth, words)
    assert planted.notes.count(planted.answer) == 1
    assert abs(planted.notes.index(planted.answer) / len(planted.notes) - depth) < 0.05
    assert abs(words(planted.notes) - 1_000) < 100
    assert planted.answer != plant(8, 1_000, depth, words).answer


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("depth", [0.0, 0.5, 1.0])
def test_each_way_keeps_the_fact_within_its_budget(strategy: str, depth: float) -> None:
    planted = plant(1, 1_000, depth, words)

    conversation = put(planted, strategy, 200, 0.2)

    assert any(planted.answer in message.content for message in conversation.messages)
    assert conversation.messages[-1].content.endswith(planted.question)
    assert strategy == "stuffing" or prompt_characters(conversation) <= 1_000


def trial(strategy: str, depth: float, found: bool) -> Trial:
    return Trial("m", strategy, 512, depth, found, True, 600, 0.5)


TRIALS = [trial("stuffing", 0.0, True), trial("stuffing", 1.0, False), trial("retrieval", 0.0, True)]


def test_a_run_is_shown_by_depth_and_over_all(tmp_path: Path) -> None:
    shown = table(TRIALS).splitlines()

    assert shown[1].split()[:6] == ["m", "stuffing", "512", "100%", "0%", "50%"]
    assert "-" in shown[2]
    assert [cell.asked for cell in cells(TRIALS) if cell.depth is None] == [2, 1]
    assert json.loads(json.dumps(document(TRIALS, {"trials": 1})))["cells"][0]["accuracy"] == 1.0
    draw(TRIALS, tmp_path / "run.png")
    assert (tmp_path / "run.png").stat().st_size > 1_000


@pytest.mark.parametrize("wrong", [["--lengths", "3"], ["--depths", "2"], ["--trials", "0"], ["--strategies", "x"]])
def test_wrong_options_are_refused(wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as refusal:
        options_of(wrong)

    assert refusal.value.code == 2


def test_a_model_that_is_missing_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--models", "/none", "--no-progress"]) == 2
    assert "/none" in capsys.readouterr().err
