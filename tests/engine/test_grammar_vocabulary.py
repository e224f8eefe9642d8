"""Structured outputs over any vocabulary: tokens that a model lacks, special tokens spelt in a text, no end token."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer

from engine import Engine, FinishReason, Grammar, SamplingParams

FAST = Path(__file__).resolve().parents[2] / "deployments" / "models" / "fast"


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = Engine.from_pretrained(FAST, kv_cache_tokens=16_384)
    yield engine
    engine.close()


@pytest.mark.parametrize("special", [True, False], ids=["special", "plain"])
@pytest.mark.parametrize("word", ["[PAD]", "redxq"])
def test_a_token_that_the_model_lacks_is_never_allowed(tmp_path: Path, word: str, special: bool) -> None:
    model = shutil.copytree(FAST, tmp_path / "model")
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    added = AddedToken(word, special=special, normalized=False)
    assert (tokenizer.add_special_tokens if special else tokenizer.add_tokens)([added]) == 1
    tokenizer.save(str(model / "tokenizer.json"))
    engine = Engine.from_pretrained(model, kv_cache_tokens=2_048)
    rows = engine.model_info.vocab_size
    params = SamplingParams(temperature=2.0, max_tokens=40)
    grammars = [Grammar.choice(["redxq", "green"]), Grammar.regex("[a-z]{3}"), Grammar.json_schema({"const": "redxq"})]

    found = engine.generate(["x"] * 3, [replace(params, grammar=grammar, seed=1) for grammar in grammars])

    assert all(answer.finish_reason is FinishReason.STOP for answer in found)
    assert all(token < rows for answer in found for token in answer.token_ids)
    assert found[0].text in ("redxq", "green")
    assert re.fullmatch("[a-z]{3}", found[1].text)
    assert found[2].text == '"redxq"'


SPELT = ("<|user|>", "a <|end|> b", "<|pad|>")


@pytest.mark.parametrize(
    "make",
    [
        lambda text: Grammar.choice([text]),
        lambda text: Grammar.regex(re.escape(text)),
        lambda text: Grammar.lark(f"start: {json.dumps(text)}"),
        lambda text: Grammar.json_schema({"const": text}),
    ],
    ids=["choice", "regex", "lark", "schema"],
)
def test_a_forced_text_may_spell_a_special_token(engine: Engine, make: Callable[[str], Grammar]) -> None:
    for text in SPELT:
        [answer] = engine.generate(["x"], SamplingParams(max_tokens=40, grammar=make(text)))

        assert answer.text in (text, json.dumps(text))
        assert answer.finish_reason is FinishReason.STOP


def test_a_call_may_be_written_where_its_mark_is_a_token(tmp_path: Path) -> None:
    """As Qwen has ``<tool_call>``: part of the text, and not special."""
    model = shutil.copytree(FAST, tmp_path / "model")
    data = json.loads((model / "tokenizer.json").read_text())
    [spare] = [name for name, token in data["model"]["vocab"].items() if token == 4_095]
    data["model"]["merges"] = [pair for pair in data["model"]["merges"] if "".join(pair) != spare]
    del data["model"]["vocab"][spare]
    mark = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    data["added_tokens"].append({"id": 4_095, "content": "<tool_call>", **mark})
    (model / "tokenizer.json").write_text(json.dumps(data))
    engine = Engine.from_pretrained(model, kv_cache_tokens=2_048)
    assert engine._admission.tokenizer.encode("<tool_call>")[-1] == 4_095
    params = SamplingParams(max_tokens=40, grammar=Grammar.lark('start: "<tool_call>\\n" ("yes" | "no")'))

    [forced] = engine.generate(["x"], params)
    [wished] = engine.generate(["x"], replace(params, logit_bias={4_095: 100.0}, logprobs=0))

    for answer in (forced, wished):
        assert re.fullmatch("<tool_call>\n(yes|no)", answer.text)


def test_forced_text_is_written_where_a_tokenizer_begins_texts_with_a_space(tmp_path: Path) -> None:
    model = shutil.copytree(FAST, tmp_path / "model")
    path = model / "tokenizer.json"
    text = path.read_text()
    assert '"add_prefix_space":false' in text.replace(" ", "")
    path.write_text(re.sub(r'"add_prefix_space":\s*false', '"add_prefix_space": true', text))
    engine = Engine.from_pretrained(model, kv_cache_tokens=2_048)

    [answer] = engine.generate(["x"], SamplingParams(max_tokens=40, grammar=Grammar.choice(["a long word"])))

    assert answer.text == "a long word"


def test_a_model_without_an_end_of_text_token_ends_structured_outputs(tmp_path: Path) -> None:
    model = shutil.copytree(FAST, tmp_path / "model")
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        settings = json.loads((model / name).read_text())
        settings.pop("eos_token_id", None)
        settings.pop("eos_token", None)
        (model / name).write_text(json.dumps(settings))
    engine = Engine.from_pretrained(model, kv_cache_tokens=2_048)
    params = SamplingParams(temperature=2.0, max_tokens=40, grammar=Grammar.regex("(ab){1,3}c?"))

    found = engine.generate(["x"] * 6, [replace(params, seed=seed) for seed in range(6)])

    assert engine._admission.tokenizer.eos_token_ids == frozenset()
    for answer in found:
        assert re.fullmatch("(ab){1,3}c?", answer.text)
