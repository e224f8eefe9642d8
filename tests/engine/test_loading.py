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
from transformers import LlamaConfig, Phi3Config
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from engine import Engine, SamplingParams
from engine.model.configuration import NULLABLE, spec_of
from engine.model.family import FAMILIES
from engine.model.rope import head_order, inverse_frequencies, rope_tables
from engine.model.spec import RopeSpec, UnsupportedModelError
from engine.tokenizer import Tokenizer
from tests.engine import families
from tests.engine.models import LLAMA3_ROPE, SHAPE, save
from tests.engine.tokenizers import save_llama, sentencepiece

GREEDY = SamplingParams(temperature=0, max_tokens=5)


@pytest.fixture
def copy(model_path: Callable[[str], Path], tmp_path: Path) -> Path:
    """A model directory to be changed."""
    return shutil.copytree(model_path("llama-untied"), tmp_path / "copy")


@pytest.fixture
def gpt2(tmp_path: Path) -> Path:
    """A GPT-2 to be changed."""
    return save(families.CONFIGS["gpt2"], tmp_path / "gpt2")


def edit(directory: Path, name: str, **values: Any) -> None:
    path = directory / name
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


SUPPORTED = ", ".join(
    f"{family}ForCausalLM" for family in ("Llama", "Mistral", "Mixtral", "Qwen2", "Qwen3", "Qwen3Moe")
)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"architectures": ["MambaForCausalLM"]}, f"'MambaForCausalLM'.*{SUPPORTED}.*GPT2LMHeadModel"),
        ({"architectures": ["Gemma3ForConditionalGeneration"]}, "'Gemma3ForConditionalGeneration'.*Gemma3ForCausalLM"),
        ({"architectures": None}, "supported: LlamaForCausalLM"),
        ({"rope_parameters": {"rope_type": "ntk", "rope_theta": 1e4}}, "'ntk'.*default, linear, dynamic, llama3, yarn"),
        ({"hidden_act": "relu"}, "'relu'.*silu, gelu"),
        ({"quantization_config": {"bits": 4}}, "quantised"),
    ],
)
def test_unsupported_models_are_refused_with_the_supported(copy: Path, values: dict[str, Any], message: str) -> None:
    edit(copy, "config.json", **values)

    with pytest.raises(UnsupportedModelError, match=message):
        Engine.from_pretrained(copy)


def as_transformers_4(config: dict[str, Any]) -> dict[str, Any]:
    """The same config.json in the layout before transformers 5."""
    old = dict(config)
    rope = old.pop("rope_parameters", None) or {}
    old.pop("layer_types", None)
    if "sliding_attention" in rope:
        old["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        rope = rope["full_attention"]
    old |= {key: rope[key] for key in ("rope_theta", "partial_rotary_factor") if key in rope}
    scaling = {key: value for key, value in rope.items() if key not in ("rope_theta", "rope_type")}
    old["rope_scaling"] = (
        {"type": rope["rope_type"], **scaling} if rope.get("rope_type", "default") != "default" else None
    )
    return old


@pytest.mark.parametrize("name", families.CONFIGS)
def test_both_layouts_of_config_json_mean_the_same(name: str) -> None:
    config = families.CONFIGS[name]
    architecture = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[config.model_type]
    pattern = {"sliding_window_pattern": 2} if name == "gemma3" else {}  # transformers 5 writes the list instead
    new = {**json.loads(config.to_json_string()), **pattern, "architectures": [architecture]}

    assert spec_of(as_transformers_4(new)) == spec_of(new)


def excerpt(architecture: str, **values: Any) -> dict[str, Any]:
    """A config.json of 12 layers that says nothing about the rest but ``values``."""
    sizes = {"vocab_size": 100, "hidden_size": 64, "num_attention_heads": 4, "max_position_embeddings": 4096}
    return {"architectures": [architecture], "num_hidden_layers": 12, **sizes, **values}


@pytest.mark.parametrize(
    ("config", "windows"),
    [
        (excerpt("LlamaForCausalLM", sliding_window=100), [None] * 12),  # not a key of this family
        (excerpt("MistralForCausalLM"), [4096] * 12),  # the first release does not say it
        (excerpt("MistralForCausalLM", sliding_window=None), [None] * 12),
        (excerpt("Qwen2ForCausalLM", sliding_window=100, max_window_layers=2), [None] * 12),  # not switched on
        (
            excerpt("Qwen2ForCausalLM", use_sliding_window=True, sliding_window=100, max_window_layers=2),
            [None] * 2 + [100] * 10,
        ),
        (excerpt("Gemma2ForCausalLM", sliding_window=100), [100, None] * 6),
        (excerpt("Gemma3ForCausalLM", sliding_window=100), ([100] * 5 + [None]) * 2),
        (
            excerpt(
                "Gemma3ForCausalLM", sliding_window=100, layer_types=["full_attention"] * 11 + ["sliding_attention"]
            ),
            [None] * 11 + [100],
        ),
    ],
)
def test_layers_have_the_windows_of_their_family(config: dict[str, Any], windows: list[int | None]) -> None:
    spec = spec_of(config)

    assert [spec.kinds[layer.kind].window for layer in spec.layers] == windows
    assert len(spec.kinds) == len(set(windows))  # layers that see alike share a plan


@pytest.mark.parametrize(
    ("values", "context"),
    [
        ({}, 4096),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096}}, 16_384),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}}, 4096),
        ({"rope_scaling": {"type": "linear", "factor": 4.0}}, 4096),
    ],
)
def test_yarn_says_what_it_makes_of_the_context(values: dict[str, Any], context: int) -> None:
    assert spec_of(excerpt("Qwen2ForCausalLM", **values)).context_length == context


LONG = {"long_factor": [2.0, 3.0, 4.0, 5.0], "short_factor": [1.0, 1.0, 1.5, 2.0]}


@pytest.mark.parametrize(
    ("rope", "length"),
    [
        ({"rope_type": "linear", "factor": 3.0}, 256),
        ({"rope_type": "dynamic", "factor": 3.0}, 256),
        ({"rope_type": "dynamic", "factor": 3.0}, 1000),
        (LLAMA3_ROPE, 256),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}, 256),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "truncate": False}, 256),
        ({"rope_type": "yarn", "factor": 40.0, "beta_fast": 16, "mscale": 0.7, "mscale_all_dim": 1.0}, 256),
        ({"rope_type": "yarn", "factor": 4.0, "attention_factor": 1.5, "partial_rotary_factor": 0.5}, 256),
        ({"rope_type": "longrope", "original_max_position_embeddings": 64, **LONG}, 64),
        ({"rope_type": "longrope", "original_max_position_embeddings": 64, **LONG}, 65),
    ],
)
def test_scaled_frequencies_are_those_of_transformers(rope: dict[str, Any], length: int) -> None:
    config = LlamaConfig(**SHAPE, rope_parameters={"rope_theta": 1e4, **rope})
    found = spec_of(config.to_dict() | {"architectures": ["LlamaForCausalLM"]}).kinds[0].rope
    frequencies, magnitude = ROPE_INIT_FUNCTIONS[rope["rope_type"]](config, torch.device("cpu"), length)

    assert found is not None
    assert found.magnitude == pytest.approx(magnitude)
    torch.testing.assert_close(inverse_frequencies(found, SHAPE["head_dim"], length)[: len(frequencies)], frequencies)


def test_a_part_of_a_head_is_rotated_and_the_rest_left_alone() -> None:
    rope = RopeSpec(rotated=0.5, magnitude=2.0)
    cos, sin = rope_tables(rope, 8, 10)
    head = torch.randn(8)
    order = head_order(rope, 8)

    assert order is not None
    moved = head[order]
    rotated = moved * cos[7] + moved.roll(4) * sin[7]
    back = torch.empty(8).index_copy_(0, order, rotated)
    angles = 7 * inverse_frequencies(rope, 8, 10)[:2]
    first, second = head[:2], head[2:4]
    expected = torch.cat((first * angles.cos() - second * angles.sin(), second * angles.cos() + first * angles.sin()))
    torch.testing.assert_close(back, torch.cat((2 * expected, head[4:])))


def test_learned_positions_end_where_they_end(gpt2: Path) -> None:
    assert Engine.from_pretrained(gpt2).model_info.context_length == 256
    with pytest.raises(ValueError, match="256 positions"):
        Engine.from_pretrained(gpt2, context_length=257)


def test_a_checkpoint_without_a_root_is_read_as_one_with_it(gpt2: Path) -> None:
    expected = Engine.from_pretrained(gpt2, kv_cache_tokens=1024).generate([[1, 2, 3]], GREEDY)
    tensors = load_file(gpt2 / "model.safetensors")
    save_file({name.removeprefix("transformer."): t for name, t in tensors.items()}, gpt2 / "model.safetensors")

    assert Engine.from_pretrained(gpt2, kv_cache_tokens=1024).generate([[1, 2, 3]], GREEDY) == expected


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


@pytest.mark.parametrize(
    ("generation", "config", "expected"),
    [
        (5, 7, {0, 5, 7}),
        ([5, 6], 0, {0, 5, 6}),
        (None, [7, 8], {0, 7, 8}),
        (None, None, {0}),
        (SHAPE["vocab_size"], -1, {0, -1}),  # the model has no such token
    ],
)
def test_answers_end_with_whatever_any_file_names(
    copy: Path, generation: object, config: object, expected: set[int]
) -> None:
    edit(copy, "generation_config.json", eos_token_id=generation)
    edit(copy, "config.json", eos_token_id=config)

    assert Tokenizer.from_directory(copy).eos_token_ids == expected


def test_without_generation_config_the_model_says_its_end(copy: Path) -> None:
    (copy / "generation_config.json").unlink()

    assert Tokenizer.from_directory(copy).eos_token_ids == {0}


@pytest.mark.parametrize("kind", ["su", "longrope", "yarn"])
def test_scaled_positions_load_under_each_of_their_names(tmp_path: Path, kind: str) -> None:
    config = Phi3Config(**SHAPE | {"pad_token_id": 0}, original_max_position_embeddings=64)
    directory = save(config, tmp_path / "phi3")
    factors = {"short_factor": [1.0] * 4, "long_factor": [1.5, 2.5, 3.5, 4.5]}
    values = json.loads((directory / "config.json").read_text())
    values.pop("rope_parameters")
    values |= {"rope_theta": 1e4, "original_max_position_embeddings": 64, "rope_scaling": {"type": kind, **factors}}
    (directory / "config.json").write_text(json.dumps(values))

    engine = Engine.from_pretrained(directory, kv_cache_tokens=1024)

    assert engine.generate(["Hello"], GREEDY)[0].token_ids
    assert spec_of(values) == spec_of(values | {"rope_scaling": {"type": "longrope", **factors}})


@pytest.mark.parametrize(
    ("architecture", "key"),
    [
        *((name, "tie_word_embeddings") for name in FAMILIES),
        *((name, key) for name, family in FAMILIES.items() for key in family.keys if key not in NULLABLE),
        *(("LlamaForCausalLM", key) for key in ("rms_norm_eps", "rope_theta", "rope_scaling", "hidden_act")),
    ],
)
def test_null_is_as_if_the_key_were_not_there(architecture: str, key: str) -> None:
    config = excerpt(architecture)

    assert spec_of(config | {key: None}) == spec_of(config)


@pytest.mark.parametrize(("key", "expected"), [("sliding_window", None), ("num_key_value_heads", 4), ("head_dim", 16)])
def test_null_is_a_value_of_some_keys(key: str, expected: object) -> None:
    spec = spec_of(excerpt("MistralForCausalLM") | {key: None})
    found = {
        "sliding_window": spec.kinds[0].window,
        "num_key_value_heads": spec.num_kv_heads,
        "head_dim": spec.head_dim,
    }

    assert found[key] == expected


def test_softcaps_are_switched_off_by_null() -> None:
    off = {"attn_logit_softcapping": None, "final_logit_softcapping": None}
    spec = spec_of(excerpt("Gemma2ForCausalLM") | off)

    assert (spec.score_cap, spec.logit_cap) == (None, None)


@pytest.mark.parametrize("key", ["vocab_size", "hidden_size"])
def test_a_required_key_that_is_null_is_named(key: str) -> None:
    with pytest.raises(KeyError, match=key):
        spec_of(excerpt("LlamaForCausalLM") | {key: None})


@pytest.mark.parametrize("declared", ["LlamaTokenizer", "LlamaTokenizerFast", "PreTrainedTokenizerFast", None])
def test_the_tokenizer_is_the_one_of_its_file_whatever_class_is_declared(tmp_path: Path, declared: str | None) -> None:
    directory = save_llama(sentencepiece(), tmp_path / "llama")
    edit(directory, "tokenizer_config.json", tokenizer_class=declared)

    tokens = Tokenizer.from_directory(directory).encode("What is</s>the")

    assert tokens == sentencepiece().encode("What is</s>the")


def test_a_tokenizer_of_older_files_is_read(copy: Path, tmp_path: Path) -> None:
    expected = Tokenizer.from_directory(copy).encode("naïve foxes")
    told = json.loads((copy / "tokenizer.json").read_text())["model"]
    (copy / "tokenizer.json").unlink()
    (copy / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    (copy / "vocab.json").write_text(json.dumps(told["vocab"]))
    (copy / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, told["merges"])]))

    assert Tokenizer.from_directory(copy).encode("naïve foxes") == expected
