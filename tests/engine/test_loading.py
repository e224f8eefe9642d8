"""Model directories: what is read, what is refused, and how the refusal reads."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from engine import Engine, SamplingParams
from engine.model.rope import inverse_frequencies
from engine.model.spec import ModelSpec, UnsupportedModelError
from engine.tokenizer import Tokenizer
from tests.engine.models import CONFIGS

GREEDY = SamplingParams(temperature=0, max_tokens=5)


@pytest.fixture
def copy(model_path: Callable[[str], Path], tmp_path: Path) -> Path:
    """A model directory to be changed."""
    return shutil.copytree(model_path("llama-untied"), tmp_path / "copy")


def edit(directory: Path, name: str, **values: Any) -> None:
    path = directory / name
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"architectures": ["MambaForCausalLM"]}, "'MambaForCausalLM'.*LlamaForCausalLM, Qwen3ForCausalLM"),
        ({"architectures": None}, "supported: LlamaForCausalLM"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "'yarn'.*default, linear, llama3"),
        ({"hidden_act": "gelu"}, "'gelu'.*silu"),
        ({"quantization_config": {"bits": 4}}, "quantised"),
    ],
)
def test_unsupported_models_are_refused_with_the_supported(copy: Path, values: dict[str, Any], message: str) -> None:
    edit(copy, "config.json", **values)

    with pytest.raises(UnsupportedModelError, match=message):
        Engine.from_pretrained(copy)


def test_both_spellings_of_rope_mean_the_same() -> None:
    old = CONFIGS["llama3-rope"].to_dict() | {"architectures": ["LlamaForCausalLM"]}
    new = dict(old)
    rope = old.pop("rope_parameters")
    old |= {"rope_theta": rope["rope_theta"], "rope_scaling": {k: v for k, v in rope.items() if k != "rope_theta"}}

    assert ModelSpec.from_config(old) == ModelSpec.from_config(new)
    assert ModelSpec.from_config(new).rope.theta == 500_000.0


def test_llama3_frequencies_are_those_of_transformers() -> None:
    config = CONFIGS["llama3-rope"]
    spec = ModelSpec.from_config(config.to_dict() | {"architectures": ["LlamaForCausalLM"]})
    expected, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))

    torch.testing.assert_close(inverse_frequencies(spec.rope, spec.head_dim), expected)


def test_shards_are_read_as_one(copy: Path) -> None:
    expected = Engine.from_pretrained(copy, kv_cache_tokens=1024).generate(["The quick"], GREEDY)
    tensors = load_file(copy / "model.safetensors")
    shards = {name: f"model-{number % 2}.safetensors" for number, name in enumerate(tensors)}
    for shard in set(shards.values()):
        save_file({name: tensors[name] for name, file in shards.items() if file == shard}, copy / shard)
    (copy / "model.safetensors").unlink()
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))

    assert Engine.from_pretrained(copy, kv_cache_tokens=1024).generate(["The quick"], GREEDY) == expected


def test_missing_weights_are_named(copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, copy / "model.safetensors")
    with pytest.raises(KeyError, match=r"lm_head\.weight"):
        Engine.from_pretrained(copy)

    (copy / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="safetensors"):
        Engine.from_pretrained(copy)


@pytest.mark.parametrize(("value", "expected"), [(5, {5}), ([5, 6], {5, 6})])
def test_end_of_sequence_comes_from_the_generation_config_first(copy: Path, value: object, expected: set[int]) -> None:
    edit(copy, "generation_config.json", eos_token_id=value)

    assert Tokenizer.from_directory(copy).eos_token_ids == expected


def test_without_generation_config_the_model_says_its_end(copy: Path) -> None:
    (copy / "generation_config.json").unlink()

    assert Tokenizer.from_directory(copy).eos_token_ids == {0}
