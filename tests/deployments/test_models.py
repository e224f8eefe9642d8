"""The embedded models are whole: each loads offline as Hugging Face directories do, and speaks its chat template."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from deployments.models.training.routing.answers import fingerprint

MODELS = Path(__file__).resolve().parents[2] / "deployments" / "models"
TIERS = ("fast", "balanced", "frontier")
MARKS = ("<|bos|>", "<|end|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>")
QUESTIONS = (
    "Hello!",
    "What is 2 + 3?",
    "Write in capital letters: river stone",
    "Grace lives in Oslo and works as an engineer. Where does Grace live?",
    "How many words are here: apple cloud tiger",
)
LIMIT = 40 * 2**20  # bytes of all models together: they live in git


@pytest.fixture(name="tokenizer", scope="module")
def _tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(MODELS / "fast", local_files_only=True)


@pytest.fixture(name="model", scope="module", params=TIERS)
def _model(request: pytest.FixtureRequest) -> Any:
    return AutoModelForCausalLM.from_pretrained(MODELS / request.param, local_files_only=True).float().eval()


@pytest.mark.parametrize("tier", TIERS)
def test_a_directory_holds_what_a_hugging_face_directory_holds(tier: str) -> None:
    names = {path.name for path in (MODELS / tier).iterdir()}

    assert names >= {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "README.md"}
    assert any(name.endswith(".safetensors") for name in names)


@pytest.mark.parametrize("tier", TIERS)
def test_special_tokens_are_the_same_in_every_file(tier: str, tokenizer: Any) -> None:
    config = json.loads((MODELS / tier / "config.json").read_text())
    generation = json.loads((MODELS / tier / "generation_config.json").read_text())

    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        assert config[name] == generation[name] == getattr(tokenizer, name)
    assert config["max_position_embeddings"] == 1024
    assert config["vocab_size"] >= len(tokenizer)
    assert config["tie_word_embeddings"]


@pytest.mark.parametrize("tier", TIERS)
def test_card_baseline_and_forecaster_are_of_these_weights(tier: str) -> None:
    """They go stale together: ``make train`` makes them together."""
    card = (MODELS / tier / "README.md").read_text()
    told = re.search(r"^\| \*\*all\*\* .* ([\d.]+) \|$", card, re.MULTILINE)
    baseline = json.loads((MODELS / "quality.json").read_text())["sets"]["tasks"]["tiers"][tier]["overall"]
    forecaster = json.loads((MODELS / "auto.json").read_text())["about"]["tiers"][tier]

    assert told is not None
    assert float(told[1]) == pytest.approx(100 * baseline, abs=0.06)
    assert forecaster["model"] == fingerprint(MODELS / tier)


def test_all_tiers_share_one_tokenizer() -> None:
    assert len({(MODELS / tier / "tokenizer.json").read_bytes() for tier in TIERS}) == 1


def test_all_models_together_fit_into_git() -> None:
    assert sum(path.stat().st_size for tier in TIERS for path in (MODELS / tier).rglob("*")) <= LIMIT


@given(text=st.text())
def test_text_survives_the_tokenizer(tokenizer: Any, text: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False)

    assert tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False) == text


@given(text=st.text(alphabet=st.characters(codec="utf-8"), min_size=1))
def test_no_text_but_a_mark_becomes_a_special_token(tokenizer: Any, text: str) -> None:
    if not any(mark in text for mark in MARKS):
        assert not set(tokenizer.encode(text, add_special_tokens=False)) & set(tokenizer.all_special_ids)


def test_marks_are_one_token_each(tokenizer: Any) -> None:
    for mark in MARKS:
        assert len(tokenizer.encode(mark, add_special_tokens=False)) == 1


def test_a_conversation_opens_the_turn_of_the_assistant(tokenizer: Any) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "Bye"},
    ]

    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    assert text == (
        "<|bos|><|system|>Be brief.<|end|><|user|>Hi<|end|><|assistant|>Hello!<|end|><|user|>Bye<|end|><|assistant|>"
    )
    assert not tokenizer.apply_chat_template(messages, tokenize=False).endswith("<|assistant|>")


def test_developer_is_another_name_for_system(tokenizer: Any) -> None:
    def render(role: str) -> Any:
        return tokenizer.apply_chat_template([{"role": role, "content": "Be brief."}], tokenize=False)

    assert render("developer") == render("system")


def test_most_simple_questions_get_an_answer_that_ends(model: Any, tokenizer: Any) -> None:
    ended = 0
    for question in QUESTIONS:
        inputs = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        output = model.generate(**inputs, max_new_tokens=64, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        ended += int(output[-1] == tokenizer.eos_token_id and len(output) > 1)

    assert ended > len(QUESTIONS) / 2
