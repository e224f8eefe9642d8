"""A chat template in a file of its own takes the place of the model's, which GGUF files often lack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine import Engine, RequestError, SamplingParams
from engine.api import Conversation, Message
from engine.model.source import open_model
from engine.token_id_tokenizer import load_tokenizer
from engine.tokenizer import Tokenizer
from tests.engine.gguf_files import SavedGGUF, Type
from tests.engine.gguf_vocabularies import TEMPLATE, byte_level
from tests.engine.models import save_model

OTHER = "{% for m in messages %}<|begin|>{{ m.content }}{% endfor %}"
HELLO = Conversation((Message("user", "It's 12 o'clock."),))
SETTINGS: dict[str, Any] = {"kv_cache_tokens": 256, "kernels": "torch"}


def saved(directory: Path, template: str | None) -> Path:
    """A GGUF file with a tokenizer, and with a chat template unless that is None."""
    metadata = byte_level(tokenizer__chat_template=template)
    del metadata["general.architecture"]
    return SavedGGUF("llama-wide", Type.Q4_1, directory, metadata=metadata).path


@pytest.fixture
def template(tmp_path: Path) -> Path:
    path = tmp_path / "own.jinja"
    path.write_text(OTHER, "utf-8")
    return path


@pytest.mark.parametrize("model", ["gguf", "gguf without one", "directory"])
def test_conversations_are_written_by_the_template_in_the_file(model: str, template: Path, tmp_path: Path) -> None:
    if model == "directory":
        path = save_model("llama-tied", tmp_path / "model")
    else:
        path = saved(tmp_path, None if "without" in model else TEMPLATE)

    tokenizer = load_tokenizer(open_model(path), template)

    assert isinstance(tokenizer, Tokenizer)
    assert tokenizer.encode(HELLO) == tokenizer.encode("<|begin|>It's 12 o'clock.")


def test_a_model_without_a_template_is_warned_of_and_refuses_conversations(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Engine.from_pretrained(saved(tmp_path, None), **SETTINGS)

    assert "model.gguf has no chat template, so it refuses conversations; chat_template gives one" in caplog.text
    with pytest.raises(RequestError, match="no chat template"):
        engine.generate([HELLO], SamplingParams(max_tokens=1))
    assert engine.generate(["It's"], SamplingParams(max_tokens=1))[0].token_ids
    engine.close()


def test_with_a_template_it_serves_conversations_without_a_warning(
    template: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Engine.from_pretrained(saved(tmp_path, None), chat_template=str(template), **SETTINGS)

    assert engine.generate([HELLO], SamplingParams(max_tokens=1, ignore_eos=True))[0].token_ids
    assert "no chat template" not in caplog.text
    engine.close()


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (None, FileNotFoundError, "own"),
        (b"{% for m in messages %}", ValueError, r"chat_template: .*own\.jinja is no Jinja template: Unexpected end"),
        (b"\xff", ValueError, "utf-8"),
        (b" \n", ValueError, r"chat_template: .*own\.jinja is empty"),
    ],
)
def test_a_template_that_is_none_is_refused_when_the_model_is_loaded(
    content: bytes | None, error: type[Exception], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "own.jinja"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(error, match=message):
        load_tokenizer(open_model(saved(tmp_path, TEMPLATE)), path)


def test_a_model_without_a_tokenizer_takes_no_template(template: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no tokenizer, and so no conversations"):
        load_tokenizer(open_model(SavedGGUF("llama", Type.Q4_1, tmp_path).path), template)
