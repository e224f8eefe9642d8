"""GGUF files with random faults are served or refused, and cost no more memory than they are large."""

from __future__ import annotations

import random
import re
import struct
from pathlib import Path

import pytest

from engine import Engine, SamplingParams
from engine.api import Conversation, Message
from engine.backend import load_model
from engine.config import EngineConfig
from engine.gguf.errors import GGUFError
from engine.model.source import open_model
from engine.model.spec import UnsupportedModelError
from engine.token_id_tokenizer import load_tokenizer
from tests.engine.gguf_files import SavedGGUF, Type
from tests.engine.gguf_vocabularies import TEMPLATE, byte_level, pieces
from tests.engine.peak_memory import peak_bytes, reset_peak

ROOM = 12 << 20
"""Bytes that an engine takes whatever its model; a quarter of what eight times the size of a file allows."""


def mutated(content: bytes, seed: int) -> bytes:
    """Bytes turned, a piece cut out or doubled, or a number made large; mostly in the header."""
    numbers, data = random.Random(seed), bytearray(content)
    end = len(data) if seed % 4 == 0 else header_bytes(content)
    for _ in range(numbers.choice([1, 1, 3, 20])):
        place = numbers.randrange(end - 16)
        match numbers.randrange(5):
            case 0:
                data[place] ^= 1 << numbers.randrange(8)
            case 1:
                data[place : place + 8] = struct.pack("<Q", numbers.choice([0, 1 << 31, 1 << 40, (1 << 64) - 1]))
            case 2:
                del data[place : place + numbers.randrange(1, 16)]
            case 3:
                data[place:place] = data[place : place + numbers.randrange(1, 16)]
            case 4:
                data[place] = numbers.randrange(256)
    return bytes(data)


def header_bytes(content: bytes) -> int:
    """How much of a file is metadata and descriptions of tensors, at most."""
    return max(found.end() for found in re.finditer(rb"blk\.\d\.[a-z_]+\.weight|output_norm\.weight", content)) + 40


@pytest.fixture(scope="module")
def whole_models(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Files with weights, a vocabulary of either kind and a chat template; their header is mostly the vocabulary."""
    made = []
    for metadata in (byte_level(), pieces()):
        keys = {key: value for key, value in metadata.items() if key != "general.architecture"}
        template = {"tokenizer.chat_template": TEMPLATE}
        directory = tmp_path_factory.mktemp("whole")
        saved = SavedGGUF("llama-wide", Type.Q4_1, directory, metadata=keys | template)
        for kernels in ("torch", "auto"):  # what the first engine of a process takes besides
            assert served(saved.path, kernels)
        made.append(saved.path.read_bytes())
    return made


def served(path: Path, kernels: str) -> bool:
    """Whether a file is served rather than refused."""
    try:
        config = EngineConfig(model=str(path), kv_cache_tokens=256, kernels=kernels)  # type: ignore[arg-type]
        source = open_model(path)
        engine = Engine(config, load_model(config, source), load_tokenizer(source))
        engine.generate([Conversation((Message("user", "It's 12 o'clock."),))], SamplingParams(max_tokens=2))
        engine.close()
    except (GGUFError, UnsupportedModelError, KeyError, ValueError):
        return False
    return True


@pytest.mark.parametrize("seed", range(200))
def test_a_mutated_file_is_served_or_refused(whole_models: list[bytes], tmp_path: Path, seed: int) -> None:
    path = tmp_path / "mutated.gguf"
    path.write_bytes(mutated(whole_models[seed % 2], seed))
    before = reset_peak()

    served(path, "torch" if seed // 2 % 2 else "auto")

    assert peak_bytes() - before < 8 * path.stat().st_size + ROOM
