"""A tokenizer that is read without transformers is the one that transformers reads."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from engine.tokenizer_files import read_plain_tokenizer, read_tokenizer

MODELS = Path(__file__).parents[2] / "deployments" / "models"
FAST = MODELS / "fast"
END = {"content": "<|end|>", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    shutil.copytree(FAST, directory, ignore=shutil.ignore_patterns("*.safetensors"))
    return directory


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def check_equal(directory: Path) -> None:
    found, expected = read_tokenizer(directory), PreTrainedTokenizerFast.from_pretrained(directory)
    assert json.loads(found.backend_tokenizer.to_str()) == json.loads(expected.backend_tokenizer.to_str())
    assert found.chat_template == expected.chat_template
    assert found.special_tokens_map == expected.special_tokens_map


@pytest.mark.parametrize("name", ["fast", "balanced", "frontier"])
def test_the_embedded_models_need_no_transformers(name: str) -> None:
    assert read_plain_tokenizer(MODELS / name) is not None
    check_equal(MODELS / name)


@pytest.mark.parametrize(
    "values",
    [
        {"chat_template": "unused, since there is a file"},
        {"added_tokens_decoder": {"2": END | {"special": True}}},
        {"additional_special_tokens": ["<|user|>"], "extra_special_tokens": None},
        {"tokenizer_class": "LlamaTokenizerFast", "model_max_length": 7},
        {"eos_token": None},
    ],
)
def test_a_config_that_names_what_the_file_has_needs_none(copy: Path, values: dict[str, Any]) -> None:
    edit(copy / "tokenizer_config.json", **values)

    assert read_plain_tokenizer(copy) is not None
    check_equal(copy)


@pytest.mark.parametrize(
    "values",
    [
        {"add_bos_token": True},
        {"add_prefix_space": True},
        {"split_special_tokens": True},
        {"eos_token": "the"},
        {"sep_token": "<|new|>"},
        {"extra_special_tokens": ["<|new|>"]},
        {"added_tokens_decoder": {"2": END | {"special": True, "rstrip": True}}},
        {"added_tokens_decoder": {"5000": END | {"special": True, "content": "<|new|>"}}},
    ],
)
def test_a_config_that_changes_the_tokenizer_is_left_to_transformers(copy: Path, values: dict[str, Any]) -> None:
    edit(copy / "tokenizer_config.json", **values)

    assert read_plain_tokenizer(copy) is None
    check_equal(copy)


def test_several_templates_are_left_to_transformers(copy: Path) -> None:
    (copy / "additional_chat_templates").mkdir()
    (copy / "additional_chat_templates" / "tool_use.jinja").write_text("{{ tools }}")

    assert read_plain_tokenizer(copy) is None
    check_equal(copy)


def test_a_file_without_a_post_processor_is_left_to_transformers(copy: Path) -> None:
    edit(copy / "tokenizer.json", post_processor=None)

    assert read_plain_tokenizer(copy) is None


def test_an_engine_of_an_embedded_model_imports_no_transformers() -> None:
    code = (
        f"import sys; from engine import Engine; Engine.from_pretrained({str(FAST)!r}, kernels='torch');"
        "print(*sorted({'transformers', 'sympy', 'torch._dynamo', 'triton', 'scipy', 'pandas'} & sys.modules.keys()))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=FAST.parents[2])

    assert done.stdout.split() == []
