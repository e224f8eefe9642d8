"""The command asks each set that it is given, and compares each with its own part of the baseline."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from engine.model.location import ModelNotFoundError
from load_tests.quality.__main__ import main
from load_tests.quality.baseline import read_baseline
from load_tests.quality.options import PACKAGED, USUAL_IFEVAL, QualityOptions
from load_tests.quality.sets import MAX_TOKENS
from load_tests.quality.size import parameters

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "deployments" / "models"
OPEN = ROOT / "load_tests" / "quality" / "open_questions.jsonl"
PROMPT = {
    "key": 1,
    "prompt": "Name a city without a comma.",
    "instruction_id_list": ["punctuation:no_comma", "startend:quotation"],
    "kwargs": [{}, {}],
}


def ask(*arguments: str) -> int:
    """The command, with ``fast`` in this process and short answers."""
    common = ["--engine", "--models=fast", f"--models-dir={MODELS}", f"--open={OPEN}", "--no-progress"]
    return main([*common, "--max-tokens=8", f"--set={MODELS / 'training' / 'heldout.jsonl'}", *arguments])


@pytest.fixture(name="prompts")
def _prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text(json.dumps(PROMPT) + "\n")
    return path


def test_each_set_has_its_table_and_its_rows(prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = tmp_path / "run.json"

    code = ask("--sets", "tasks", "ifeval", "open", f"--ifeval={prompts}", "--limit=1", f"--json={result}")

    lines = capsys.readouterr().out.splitlines()
    sets = json.loads(result.read_text())["sets"]
    assert code == 0
    for name in ("tasks  ", "ifeval  ", "open  "):
        assert [line for place, line in enumerate(lines) if line.startswith(name) and lines[place + 1][:4] == "fast"]
    assert {name: len(part["rows"]) for name, part in sets.items()} == {"tasks": 30, "ifeval": 1, "open": 12}
    assert {name: part["items"] for name, part in sets.items()} == {"tasks": 900, "ifeval": 1, "open": 200}
    assert sets["ifeval"]["rows"][0]["instructions"] == PROMPT["instruction_id_list"]
    assert sets["ifeval"]["instructions"]["fast"]["instruction_strict"]["asked"] == 2
    assert all(bool(row["failed"]) != row["right"] for row in sets["open"]["rows"])


def test_ifeval_is_left_out_with_a_word_where_its_file_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # beside which there is no shared/data

    assert ask("--sets", "ifeval", "open", "--limit=1") == 0
    out = capsys.readouterr().out
    assert f"ifeval is left out: there is no {USUAL_IFEVAL}" in out
    assert "instruction strict" not in out


def test_a_set_is_compared_with_its_own_baseline(
    prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "quality.json"

    assert ask("--sets", "open", f"--write-baseline={path}") == 0
    assert ask("--sets", "open", "--limit=1", f"--baseline={path}") == 0
    assert "ok    open, fast, overall: 0.0 % -> 0.0 % of 12" in capsys.readouterr().out
    assert ask("--sets", "ifeval", f"--ifeval={prompts}", f"--baseline={path}") == 1  # nothing could be compared
    assert "ifeval: not in the baseline" in capsys.readouterr().out
    assert ask("--sets", "ifeval", f"--ifeval={prompts}", f"--write-baseline={path}") == 0

    stored = read_baseline(path)
    assert stored.sets.keys() == {"open", "ifeval"}
    assert (stored.sets["open"].items, stored.sets["open"].max_tokens) == (200, 8)
    assert len(stored.sets["open"].tiers["fast"].replies) == 12
    assert stored.sets["ifeval"].tiers["fast"].replies == {}


def test_a_baseline_of_other_lengths_is_refused(tmp_path: Path, prompts: Path) -> None:
    path = tmp_path / "quality.json"
    assert ask("--sets", "ifeval", f"--ifeval={prompts}", f"--write-baseline={path}") == 0

    with pytest.raises(SystemExit, match="2"):
        ask("--sets", "ifeval", f"--ifeval={prompts}", f"--baseline={path}", "--max-tokens=9")


def test_the_packaged_tier_is_the_one_of_the_development_config() -> None:
    [application] = yaml.safe_load((ROOT / "deployments" / "dev.yaml").read_text())["applications"]
    tiers = {tier["name"]: tier["engine"]["model"] for tier in application["args"]["tiers"]}

    assert {name: tiers[name] for name in PACKAGED} == PACKAGED


def test_a_packaged_tier_gives_way_to_a_directory_of_its_name_and_has_its_size(tmp_path: Path) -> None:
    try:
        packaged = QualityOptions(engine=True, models=("general",), models_dir=tmp_path).path("general")
    except ModelNotFoundError as error:
        pytest.skip(f"not everywhere can the package be had: {error}")
    shutil.copytree(MODELS / "fast", tmp_path / "general")

    assert parameters(packaged) == 134_515_008
    assert QualityOptions(engine=True, models=("general",), models_dir=tmp_path).path("general") == tmp_path / "general"


def test_every_set_has_a_length_of_its_own() -> None:
    assert MAX_TOKENS == {"tasks": 96, "ifeval": 512, "open": 160}
