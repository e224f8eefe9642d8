"""IFEval's prompts are read as published and scored per prompt and per instruction, strictly and loosely."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from load_tests.quality.ifeval.instruction import CHECKS, Instruction
from load_tests.quality.ifeval.prompt import IfevalPrompt, Verdict, read_ifeval
from load_tests.quality.ifeval.report import ifeval_json, ifeval_tables
from load_tests.quality.ifeval.score import by_group, ifeval_score, judged
from load_tests.quality.item import Item
from load_tests.quality.outcome import Outcome, Reply
from load_tests.quality.question import QuestionSet
from load_tests.quality.set_run import SetRun

PUBLISHED = Path(__file__).resolve().parents[3] / "shared" / "data" / "eval" / "ifeval.jsonl.gz"
ROW: dict[str, Any] = {
    "key": 7,
    "prompt": "Say it without commas and as JSON.",
    "instruction_id_list": ["punctuation:no_comma", "detectable_format:json_format"],
    "kwargs": [{"num_words": None}, {}],
}


def read(path: Path, *rows: dict[str, Any]) -> tuple[IfevalPrompt, ...]:
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return read_ifeval(path).items


@pytest.mark.parametrize("name", ["set.jsonl", "set.jsonl.gz"])
def test_a_prompt_is_read_with_its_instructions_and_nulls_are_no_arguments(name: str, tmp_path: Path) -> None:
    [prompt] = read(tmp_path / name, ROW)

    assert prompt.id == "7"
    assert [message.content for message in prompt.messages] == ["Say it without commas and as JSON."]
    assert prompt.instructions == (
        Instruction("punctuation:no_comma"),
        Instruction("detectable_format:json_format"),
    )
    assert (prompt.family, prompt.level) == ("punctuation", 2)


def test_packed_and_unpacked_are_the_same_set(tmp_path: Path) -> None:
    read(tmp_path / "a.jsonl", ROW)
    read(tmp_path / "a.jsonl.gz", ROW)

    assert read_ifeval(tmp_path / "a.jsonl").sha256 == read_ifeval(tmp_path / "a.jsonl.gz").sha256


@pytest.mark.parametrize(
    "change",
    [
        {"instruction_id_list": ["punctuation:no_comma"]},
        {"instruction_id_list": ["punctuation:no_dash", "detectable_format:json_format"]},
        {"instruction_id_list": [], "kwargs": []},
        {"kwargs": [{"num_words": 3}, {}]},
        {
            "instruction_id_list": ["length_constraints:number_words"],
            "kwargs": [{"relation": "at least", "num_words": "3"}],
        },
    ],
)
def test_a_line_that_no_check_can_judge_is_refused_with_its_number(change: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"set\.jsonl:2 is no item"):
        read(tmp_path / "set.jsonl", ROW, ROW | {"key": 8} | change)


@pytest.mark.parametrize("content", [b"no gzip", gzip.compress(b"{}" * 500)[:-12]], ids=["no gzip", "cut off"])
def test_a_damaged_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl.gz"
    path.write_bytes(content)

    with pytest.raises((ValueError, OSError)):
        read_ifeval(path)


def test_an_answer_is_right_if_it_follows_every_instruction(tmp_path: Path) -> None:
    [prompt] = read(tmp_path / "set.jsonl", ROW)

    assert prompt.accepts('{"a": 1}')
    assert not prompt.accepts('{"a": 1, "b": 2}')
    assert prompt.judge("Sure:\n{}") == Verdict(strict=(True, False), loose=(True, True))
    assert prompt.notes("Sure:\n{}")["strict"] == [True, False]


def run_of(tmp_path: Path) -> SetRun:
    """Three prompts with four instructions: one prompt is right, one loosely, of one the request failed."""
    one = {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    prompts = read(tmp_path / "set.jsonl", ROW, ROW | one | {"key": 8}, ROW | one | {"key": 9})
    replies = [Reply(text="Sure:\n{}"), Reply(text="None."), Reply(text="fine", problem="APITimeoutError")]
    outcomes = tuple(Outcome("fast", prompt, reply) for prompt, reply in zip(prompts, replies, strict=True))
    return SetRun("ifeval", QuestionSet(tmp_path, "0", prompts), 512, outcomes)


def test_the_four_accuracies_count_prompts_and_instructions_strictly_and_loosely(tmp_path: Path) -> None:
    run = run_of(tmp_path)

    score = ifeval_score(judged(run.outcomes))

    assert (score.prompt_strict.score.right, score.prompt_strict.score.asked) == (1, 3)
    assert (score.prompt_loose.score.right, score.prompt_loose.score.asked) == (2, 3)
    assert (score.instruction_strict.score.right, score.instruction_strict.score.asked) == (2, 4)
    assert (score.instruction_loose.score.right, score.instruction_loose.score.asked) == (3, 4)
    assert score.prompt_strict.error == pytest.approx((1 / 3 * 2 / 3 / 3) ** 0.5)
    assert {group: part.asked for group, part in by_group(judged(run.outcomes)).items()} == {
        "detectable_format": 1,
        "punctuation": 3,
    }


def test_the_tables_and_the_json_say_the_same(tmp_path: Path) -> None:
    run = run_of(tmp_path)

    text, document = "\n".join(ifeval_tables(run)), ifeval_json(run)

    assert "33.3 ± 27.2 %" in text
    assert "75.0 ± 23.4 %" in text
    assert document["fast"]["prompt_strict"]["share"] == pytest.approx(1 / 3)
    assert document["fast"]["instruction_loose"]["standard_error"] == pytest.approx(
        (0.5**2 + 0.25**2 + 0.75**2) ** 0.5 / 4
    )
    assert document["fast"]["groups"]["punctuation"] == {"share": 2 / 3, "right": 2, "asked": 3}


def test_items_of_another_set_are_not_scored() -> None:
    with pytest.raises(TypeError, match="no prompt of IFEval"):
        judged([Outcome("fast", Item("a", "tables", 1, (), "5"), Reply(text="5"))])


def test_the_published_file_has_541_prompts_and_every_kind_of_instruction() -> None:
    if not PUBLISHED.is_file():
        pytest.skip("IFEval's prompts are no part of the repository; they lie beside a developer's checkout")
    items = read_ifeval(PUBLISHED).items

    assert len(items) == 541
    assert sum(len(item.instructions) for item in items) == 834
    assert {instruction.id for item in items for instruction in item.instructions} == set(CHECKS)
    assert not any(item.accepts(reply) for item in items for reply in ("", " \n"))
