"""The command that retrains a model: what it writes, and which English it reads."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, LlamaForCausalLM

from deployments.models.training import __main__ as command
from deployments.models.training import heldout
from deployments.models.training.english import COMMON_CHARS, read_english
from deployments.models.training.shapes import SHAPES
from engine import Engine, SamplingParams
from load_tests.quality.item import read_held_out

TALE = "Once upon a time there was a river that ran to the sea and never looked back at its hills."


def write_rows(path: Path, rows: list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as lines:
        lines.writelines(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder laid out as the real one, with a few rows of each source."""
    corpus = tmp_path / "data" / "corpus"
    tales = [
        {"source": "gpteacher/roleplay", "instruction": f"Tell tale {n}.", "input": "", "response": f"{n}. {TALE}"}
        for n in range(200)
    ]
    code = {"source": "gpteacher/codegen", "instruction": "Write code.", "input": "", "response": "def never(): pass"}
    write_rows(corpus / "gpteacher.jsonl.gz", [*tales, code])
    write_rows(
        corpus / "t0_train.jsonl.gz",
        [
            {"prompt": "Is it so?", "completion": " Yes<|endoftext|>"},
            {"prompt": "Say it whole.", "completion": " It is a long way home.<|endoftext|>"},
            {"prompt": "x" * 700, "completion": " One two three four five."},
        ],
    )
    sums = {"question": "What is 2 and 3?", "answer": "Add them: 2+3 = <<2+3=5>>5\n#### 5"}
    write_rows(corpus / "gsm8k_train.jsonl.gz", [sums])
    return tmp_path / "data"


@pytest.fixture(autouse=True)
def small_curriculum(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer tasks: to train the tokenizer on, to read at a time, and for the card, three of each family and level."""
    whole = read_held_out(heldout.PATH)
    monkeypatch.setattr(command, "TOKENIZER_TASKS", 2000)
    monkeypatch.setattr("deployments.models.training.stream.CHUNK", 64)
    monkeypatch.setattr(command, "read_held_out", lambda _: replace(whole, items=whole.items[::10]))


def said(conversations: list[Any]) -> dict[str, str]:
    return {question.content: answer.content for question, answer in conversations}


def test_english_is_what_is_short_and_says_something(data: Path) -> None:
    found = said(read_english(data)) | said(read_english(data, held_out=True))

    assert found["Say it whole."] == "It is a long way home."
    assert found["What is 2 and 3?"] == "Add them: 2+3 = 5\nAnswer: 5"
    assert not found.keys() & {"Is it so?", "x" * 700, "Write code."}


def test_what_is_held_out_is_not_trained_on(data: Path) -> None:
    trained, kept = said(read_english(data)), said(read_english(data, held_out=True))

    assert kept
    assert not trained.keys() & kept.keys()
    assert len(trained) + len(kept) == 202
    assert read_english(data) == read_english(data)


def test_an_answer_that_is_held_out_comes_with_no_other_question(data: Path) -> None:
    secret = next(answer for answer in said(read_english(data, held_out=True)).values() if len(answer) > COMMON_CHARS)
    path = data / "corpus" / "t0_train.jsonl.gz"
    write_rows(path, [{"prompt": f"And tale {n}?", "completion": secret} for n in range(20)])

    assert secret not in said(read_english(data)).values()


def test_one_command_writes_a_whole_model_with_its_card(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models, work = tmp_path / "models", tmp_path / "work"
    options = ["--tier", "fast", "--tokens", "2000", "--models", str(models)]
    options += ["--work", str(work), "--data", str(data), "--seed", "7"]
    monkeypatch.setattr("sys.argv", ["training", *options])

    command.main()

    made = models / "fast"
    LlamaForCausalLM.from_pretrained(str(made), local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(made, local_files_only=True)
    assert tokenizer.apply_chat_template([{"role": "user", "content": "Hello!"}], tokenize=False)
    [answer] = Engine.from_pretrained(made).generate([[1, 2, 3]], SamplingParams(max_tokens=2, ignore_eos=True))
    assert len(answer.token_ids) == 2
    card = (made / "README.md").read_text(encoding="utf-8")
    assert "| seed | 7 |" in card
    assert "CPU cores" in card
    assert "| **all** | " in card
    assert card.count("> **") == 3
    steps = int(card.split(" tokens in ")[1].split(" steps")[0].replace(",", ""))
    assert steps > 0

    before = (made / "model.safetensors").read_bytes()
    command.main()
    assert (made / "model.safetensors").read_bytes() == before  # a finished run takes no step more
    assert f" tokens in {steps:,} steps" in (made / "README.md").read_text(encoding="utf-8")

    monkeypatch.setattr("sys.argv", ["training", *options, "--seed", "8"])
    with pytest.raises(SystemExit, match="--fresh"):
        command.main()


def test_a_tier_is_trained_after_all_that_it_grows_from(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = {
        name: replace(shape, hidden=32, heads=4, kv_heads=2, intermediate=64, layers=1 + (name == "frontier"))
        for name, shape in SHAPES.items()
    }
    monkeypatch.setattr(command, "SHAPES", tiny)
    models, work = tmp_path / "models", tmp_path / "work"
    options = ["--tokens", "2000", "--models", str(models), "--work", str(work), "--data", str(data)]

    monkeypatch.setattr("sys.argv", ["training", "--tier", "frontier", *options])
    with pytest.raises(SystemExit, match="train fast first"):
        command.main()
    for tier in ("fast", "frontier"):
        monkeypatch.setattr("sys.argv", ["training", "--tier", tier, *options])
        command.main()

    assert {path.name for path in models.iterdir()} == {"fast", "frontier"}
    stem = LlamaForCausalLM.from_pretrained(str(work / "models" / "stem"), local_files_only=True)
    assert stem.config.num_hidden_layers == 1
    made = LlamaForCausalLM.from_pretrained(str(models / "frontier"), local_files_only=True)
    assert made.config.num_hidden_layers == 2
    assert "| started from | the weights of `stem`" in (models / "frontier" / "README.md").read_text(encoding="utf-8")

    monkeypatch.setattr("sys.argv", ["training", "--tier", "frontier", *options, "--seed", "1"])
    with pytest.raises(SystemExit, match="--fresh"):  # a stem of another seed is not taken for this one's
        command.main()


def test_without_its_data_the_command_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["training", "--data", str(tmp_path), "--work", str(tmp_path / "work")])

    with pytest.raises(SystemExit, match="--data"):
        command.main()
