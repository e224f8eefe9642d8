"""The tier ``general``: the packaged SmolLM2, read from GGUF, computes what transformers does and knows English."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
import yaml
from transformers import LlamaConfig, LlamaForCausalLM

from engine import Engine, SamplingParams
from engine.api import Conversation, Message
from engine.model.location import ModelNotFoundError, check_digest, locate
from engine.model.source import open_model
from engine.runner import Runner
from engine.token_id_tokenizer import load_tokenizer
from tests.engine.families import Recorded, record
from tests.engine.gguf_files import halves_of

DEV = Path(__file__).parents[2] / "deployments" / "dev.yaml"
LONG = "MANTA_LONG_TESTS" in os.environ
PROMPTS, TOKENS = (20, 128) if LONG else (2, 24)
MAX_DIFFERENCE = 1e-3  # of a logit, float32 against float32
TOPICS = ("the sea", "a bridge", "bees", "winter", "bread", "the moon", "a violin", "rain", "chess", "trees")
QUESTIONS = [
    f"{opening} {topic}." for topic in TOPICS for opening in ("Write two sentences about", "Tell me a story of")
]


def tier() -> dict[str, Any]:
    """What dev.yaml says of ``general``."""
    [application] = yaml.safe_load(DEV.read_text("utf-8"))["applications"]
    return next(dict(row) for row in application["args"]["tiers"] if row["name"] == "general")


@pytest.fixture(scope="module")
def path() -> Path:
    try:
        return locate(tier()["engine"]["model"])
    except ModelNotFoundError as error:
        pytest.skip(str(error))


def ask(question: str) -> Conversation:
    return Conversation((Message("user", question),))


def oracle(path: Path) -> Any:
    """transformers' Llama with the weights of the file, dequantised by the gguf package."""
    reader = gguf.GGUFReader(path)
    said = {name: field.contents() for name, field in reader.fields.items()}
    config = LlamaConfig(
        vocab_size=said["llama.vocab_size"],
        hidden_size=said["llama.embedding_length"],
        intermediate_size=said["llama.feed_forward_length"],
        num_hidden_layers=said["llama.block_count"],
        num_attention_heads=said["llama.attention.head_count"],
        num_key_value_heads=said["llama.attention.head_count_kv"],
        max_position_embeddings=said["llama.context_length"],
        rms_norm_eps=said["llama.attention.layer_norm_rms_epsilon"],
        rope_parameters={"rope_type": "default", "rope_theta": said["llama.rope.freq_base"]},
        tie_word_embeddings=True,
    )
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    stored = {tensor.name: tensor for tensor in reader.tensors}
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    model: Any = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            found = str(names.get_name(name, try_suffixes=(".weight",)))
            tensor = torch.from_numpy(gguf.dequantize(stored[found].data, stored[found].tensor_type).copy())
            paired = heads.get(found.split(".")[-2])
            parameter.copy_(tensor if paired is None else halves_of(tensor, paired))
    return model


def test_the_file_is_the_one_that_is_meant(path: Path) -> None:
    check_digest([path], tier()["engine"]["model_sha256"])


def test_logits_and_greedy_tokens_are_those_of_transformers(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded: Recorded = record(monkeypatch, Runner)
    engine = Engine.from_pretrained(path, kernels="torch", kv_cache_tokens=8192, max_batch_tokens=8192)
    tokenizer = load_tokenizer(open_model(path))
    prompts = [tokenizer.encode(ask(question)) for question in QUESTIONS[:PROMPTS]]
    params = SamplingParams(temperature=0, max_tokens=TOKENS, ignore_eos=True)
    answers = [answer.token_ids for answer in engine.generate(prompts, params)]
    engine.close()

    model = oracle(path)
    for number, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        with torch.inference_mode():
            expected = model(torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
        found = torch.stack([recorded[str(number), len(prompt) + n] for n in range(len(answer))])
        assert (found - expected).abs().max() < MAX_DIFFERENCE
        first, second = expected.topk(2).values.unbind(-1)
        clear = first - second > 2 * MAX_DIFFERENCE
        assert clear.sum() > 0.9 * len(answer)
        assert torch.equal(torch.tensor(answer)[clear], expected.argmax(-1)[clear])


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"dtype": "float32"},
        {"weight_dtype": "int8"},
        {"weight_dtype": "int4"},
        {"speculative_tokens": 4},
        {"speculative_tokens": 4, "weight_dtype": "int4"},
    ],
    ids=str,
)
def test_it_answers_in_english(path: Path, settings: dict[str, Any]) -> None:
    configured = {key: value for key, value in tier()["engine"].items() if key not in ("model", "name")}
    engine = Engine.from_pretrained(path, **configured | {"kv_cache_tokens": 2048} | settings)

    [answer] = engine.generate([ask("What is the capital of Germany?")], SamplingParams(temperature=0, max_tokens=24))
    engine.close()

    assert "Berlin" in answer.text
    assert answer.text.endswith(".")
