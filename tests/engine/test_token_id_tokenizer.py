"""A model directory without a tokenizer serves token ids, and refuses what speaks of text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine import Engine, Grammar, SamplingParams
from engine.api import Conversation, GenerationRequest, Message, Prompt, RequestError
from tests.engine import families
from tests.engine.models import save

GREEDY = SamplingParams(temperature=0, max_tokens=5, logprobs=1, prompt_logprobs=0)
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json")


def without_tokenizer(directory: Path) -> Path:
    for name in TOKENIZER_FILES:
        (directory / name).unlink(missing_ok=True)
    return directory


@pytest.fixture
def bare(tmp_path: Path) -> Engine:
    return Engine.from_pretrained(
        without_tokenizer(save(families.CONFIGS["gpt2"], tmp_path / "gpt2")), kv_cache_tokens=1024
    )


@pytest.mark.parametrize("name", families.CONFIGS)
def test_every_family_serves_token_ids(name: str, tmp_path: Path) -> None:
    directory = save(families.CONFIGS[name], tmp_path / "model")
    [expected] = Engine.from_pretrained(directory, kv_cache_tokens=1024).generate([[1, 2, 3]], GREEDY)

    [answer] = Engine.from_pretrained(without_tokenizer(directory), kv_cache_tokens=1024).generate([[1, 2, 3]], GREEDY)

    assert answer.token_ids == expected.token_ids
    assert answer.text == ""
    assert answer.logprobs is not None
    assert [one.chosen.text for one in answer.logprobs] == [f"token_id:{token}" for token in answer.token_ids]
    assert {one.text_bytes for one in answer.logprobs} == {b""}


def test_the_models_end_token_ends_an_answer(tmp_path: Path) -> None:
    directory = without_tokenizer(save(families.CONFIGS["gpt2"], tmp_path / "gpt2"))
    config = json.loads((directory / "config.json").read_text()) | {"eos_token_id": 7}
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "generation_config.json").unlink()
    engine = Engine.from_pretrained(directory, kv_cache_tokens=1024)

    [answer] = engine.generate([[1, 2, 3]], SamplingParams(allowed_token_ids=(7,), max_tokens=5))

    assert (answer.token_ids, answer.finish_reason) == ((7,), "stop")


@pytest.mark.parametrize(
    ("prompt", "settings", "param"),
    [
        ("The quick", {}, "prompt"),
        (Conversation((Message("user", "hi"),)), {}, "messages"),
        ((1, 2), {"stop": ("a",)}, "stop"),
        ((1, 2), {"bad_words": ("a",)}, "bad_words"),
        ((1, 2), {"grammar": Grammar.choice(["a"])}, "grammar"),
        ((1, 2), {"grammar": Grammar("regex", "a", "guided_regex")}, "guided_regex"),
    ],
)
def test_what_speaks_of_text_is_refused(bare: Engine, prompt: Prompt, settings: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError, match="has no tokenizer") as refusal:
        bare.add(GenerationRequest("a", prompt, SamplingParams(**settings)))
    assert refusal.value.param == param


def test_a_tokenizer_that_cannot_be_read_is_no_missing_one(tmp_path: Path) -> None:
    directory = save(families.CONFIGS["gpt2"], tmp_path / "gpt2")
    (directory / "tokenizer.json").write_text("{")

    with pytest.raises(ValueError, match="column"):
        Engine.from_pretrained(directory)
