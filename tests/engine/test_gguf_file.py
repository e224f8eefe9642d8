"""GGUF files that are damaged are refused by what is wrong with them, and cost no more than they are large."""

from __future__ import annotations

import ctypes
import random
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from engine import Engine, SamplingParams
from engine.api import Conversation, Message
from engine.backend import load_model
from engine.config import EngineConfig
from engine.gguf.errors import GGUFError
from engine.gguf.file import GGUFFile
from engine.model.source import open_model
from engine.model.spec import UnsupportedModelError
from engine.token_id_tokenizer import load_tokenizer
from tests.engine.gguf_files import SavedGGUF, Type
from tests.engine.gguf_vocabularies import TEMPLATE, byte_level, pieces

ARRAY, STRING = gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.STRING
ROOM = 12 << 20
"""Bytes that an engine takes whatever its model; a quarter of what eight times the size of a file allows."""


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return SavedGGUF("llama", Type.Q4_1, tmp_path_factory.mktemp("gguf")).path


@pytest.fixture
def damaged(saved: Path, tmp_path: Path) -> Callable[[bytes, bytes], Path]:
    """The file with some bytes, which are there, replaced by as many others."""

    def replaced(old: bytes, new: bytes) -> Path:
        path = tmp_path / "damaged.gguf"
        path.write_bytes(rewritten(saved, old, new))
        return path

    return replaced


def rewritten(path: Path, old: bytes, new: bytes) -> bytes:
    """The content of ``path`` with ``new`` in place of ``old``, which must be there."""
    content = path.read_bytes()
    assert len(old) == len(new)
    assert old in content
    return content.replace(old, new, 1)


def copied(source: Path, path: Path, more: dict[str, Any], rename: Callable[[str], str] = str) -> None:
    """Writes the model of ``source`` to ``path``: tensors are renamed, and there are ``more`` numbers and tensors."""
    reader, writer = gguf.GGUFReader(source), gguf.GGUFWriter(path, "llama")
    numbers = {name: field.contents() for name, field in reader.fields.items() if name.startswith("llama.")}
    for name, value in (numbers | more).items():
        if isinstance(value, np.ndarray):
            writer.add_tensor(name, value)
        else:
            add = writer.add_float32 if isinstance(value, float) else writer.add_uint32
            add(name, value)
    for tensor in reader.tensors:
        writer.add_tensor(rename(tensor.name), np.array(tensor.data), raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def whole(key: str, value: int) -> bytes:
    """A key with a number of 32 bits."""
    return string(key) + struct.pack("<II", 4, value)


def test_metadata_and_shapes_are_read(saved: Path) -> None:
    file = GGUFFile.open(saved)

    assert file.metadata["general.architecture"] == "llama"
    assert file.metadata["llama.block_count"] == 2
    assert file.tensors["blk.0.ffn_down.weight"].shape == (256, 256)
    assert file.tensors["blk.0.ffn_down.weight"].type.name == "Q4_1"


def test_lists_of_every_type_are_read(tmp_path: Path) -> None:
    values: dict[str, list[Any]] = {
        "strings": ["a", "é"],
        "numbers": [-1, 2],
        "fractions": [0.5, 1.5],
        "flags": [True, False],
    }
    writer = gguf.GGUFWriter(tmp_path / "lists.gguf", "llama")
    for key, value in values.items():
        writer.add_array(key, value)
    writer.add_tensor("some", np.zeros(3, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    found = GGUFFile.open(tmp_path / "lists.gguf").metadata
    assert found["strings"] == values["strings"]
    assert {key: found[key].tolist() for key in values if key != "strings"} == {
        key: value for key, value in values.items() if key != "strings"
    }


@pytest.mark.parametrize("kind", ["UINT8", "UINT16", "INT32", "FLOAT32", "FLOAT64", "BOOL"])
def test_numbers_of_a_list_take_no_more_memory_than_in_the_file(kind: str, tmp_path: Path) -> None:
    count = 1 << 21
    array = np.ones(count, {"FLOAT32": "f4", "FLOAT64": "f8", "UINT16": "u2", "INT32": "i4"}.get(kind, "u1"))
    content = string("numbers") + struct.pack("<IIQ", 9, gguf.GGUFValueType[kind], count) + array.tobytes()
    path = tmp_path / "numbers.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + content + bytes(64))
    before = reset_peak()

    found = GGUFFile.open(path)

    assert len(found.metadata["numbers"]) == count
    assert peak_bytes() - before < 2 * path.stat().st_size + (1 << 20)


def test_a_list_of_lists_is_refused(tmp_path: Path) -> None:
    inner = struct.pack("<IQI", 4, 1, 7)
    content = string("lists") + struct.pack("<IIQ", 9, 9, 2) + inner + inner
    (tmp_path / "lists.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + content + bytes(64))

    with pytest.raises(GGUFError, match="lists is an array whose elements have the type 9"):
        GGUFFile.open(tmp_path / "lists.gguf")


@pytest.mark.parametrize("listed", [False, True])
def test_a_string_without_measure_is_refused_alone_and_in_a_list(listed: bool, tmp_path: Path) -> None:
    long = "x" * ((16 << 20) + 1)
    writer = gguf.GGUFWriter(tmp_path / "long.gguf", "llama")
    writer.add_key_value(
        "some.key", [long] if listed else long, ARRAY if listed else STRING, STRING if listed else None
    )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()

    with pytest.raises(GGUFError, match=r"some\.key has a string of 16777217 bytes; at most 16777216 are read"):
        GGUFFile.open(tmp_path / "long.gguf")


@pytest.mark.parametrize("split", [1, 3])
def test_parts_of_a_split_file_are_one(saved: Path, tmp_path: Path, split: int) -> None:
    reader = gguf.GGUFReader(saved)
    count = -(-len(reader.tensors) // split)
    for number in range(split):
        name = f"model-{number + 1:05}-of-{split:05}.gguf" if split > 1 else "model.gguf"
        writer = gguf.GGUFWriter(tmp_path / name, "llama")
        if number == 0:
            writer.add_block_count(2)
        writer.add_uint16("split.no", number)
        writer.add_uint16("split.count", split)
        for tensor in reader.tensors[number * count : (number + 1) * count]:
            writer.add_tensor(tensor.name, np.array(tensor.data), raw_dtype=tensor.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    first = next(path for path in sorted(tmp_path.iterdir()))

    found = GGUFFile.open(first)

    whole_file = GGUFFile.open(saved)
    assert found.tensors.keys() == whole_file.tensors.keys()
    assert all(torch.equal(tensor.raw, whole_file.tensors[name].raw) for name, tensor in found.tensors.items())
    if split > 1:
        with pytest.raises(GGUFError, match="part 2 of a split file; give the first"):
            GGUFFile.open(tmp_path / f"model-00002-of-{split:05}.gguf")
        (tmp_path / f"model-00003-of-{split:05}.gguf").unlink()
        with pytest.raises(FileNotFoundError):
            GGUFFile.open(first)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"GGUF", b"GGML", "no GGUF file"),
        (b"GGUF" + struct.pack("<I", 3), b"GGUF" + struct.pack("<I", 4), "version 4 is not supported"),
        (
            whole("llama.block_count", 2),
            whole("llama.block_count", 3),
            "block_count is 3, but there is no tensor blk.2",
        ),
        (whole("llama.block_count", 2), whole("llama.block_count", 4_000_000_000), "there is no tensor blk.2"),
        (whole("llama.block_count", 2), whole("llama.block_counx", 2), "llama.block_count is missing"),
        (whole("llama.embedding_length", 256), whole("llama.embedding_length", 512), "embedding_length is 512"),
        (whole("llama.attention.head_count", 8), whole("llama.attention.head_count", 16), "head_count x key length is"),
        (whole("llama.attention.head_count_kv", 2), whole("llama.attention.head_count_kv", 4), "head_count_kv x key"),
        (whole("llama.context_length", 256), whole("llama.context_length", 0), "no whole number above 0"),
        (whole("llama.context_length", 256), whole("llama.context_length", 1 << 31), "do not go together"),
        (whole("llama.feed_forward_length", 256), whole("llama.feed_forward_length", 288), "configuration says"),
        (string("llama"), string("llamb"), "general.architecture 'llamb' is not supported"),
        (string("blk.0.attn_norm.weight"), string("blk.0.attn_narm.weight"), "no tensor 'blk.0.attn_norm.weight'"),
        (string("blk.1.attn_norm.weight"), string("blk.0.attn_norm.weight"), "'blk.0.attn_norm.weight' is there twice"),
        (
            string("output_norm.weight") + struct.pack("<IQI", 1, 256, 0),
            string("output_norm.weight") + struct.pack("<IQI", 1, 256, 17),
            "'output_norm.weight' has the type 17, which is not supported",
        ),
        (
            string("output_norm.weight") + struct.pack("<IQ", 1, 256),
            string("output_norm.weight") + struct.pack("<IQ", 5, 256),
            "'output_norm.weight' has 5 dimensions",
        ),
        (
            string("output_norm.weight") + struct.pack("<IQ", 1, 256),
            string("output_norm.weight") + struct.pack("<IQ", 1, 1 << 60),
            "'output_norm.weight'",
        ),
        (string("blk.0.attn_q.weight"), string("blk.0.attn_Q.weight"), "attn_q.weight"),
        (string("llama.rope.freq_base"), struct.pack("<Q", 1 << 50) + b"llama.rope.freq_base", "at most"),
    ],
)
def test_what_is_wrong_is_said(damaged: Callable[[bytes, bytes], Path], old: bytes, new: bytes, message: str) -> None:
    path = damaged(old, new)

    with pytest.raises((GGUFError, UnsupportedModelError, KeyError, ValueError), match=message):
        load_model(EngineConfig(model=str(path), kv_cache_tokens=256), open_model(path))


@pytest.mark.parametrize("kernels", ["torch", "auto"])
@pytest.mark.parametrize(
    ("kind", "name", "size"),
    [
        ("llama", "blk.0.attn_norm.weight", 256),
        ("llama", "blk.1.ffn_norm.weight", 256),
        ("llama", "output_norm.weight", 256),
        ("gpt2", "blk.0.attn_norm.weight", 256),
        ("gpt2", "blk.0.attn_norm.bias", 256),
        ("gpt2", "output_norm.bias", 256),
        ("gpt2", "blk.1.attn_output.bias", 256),
        ("gemma2", "blk.0.post_attention_norm.weight", 256),
        ("qwen3", "blk.0.attn_q_norm.weight", 32),
        ("qwen3", "blk.1.attn_k_norm.weight", 32),
        ("olmo2", "blk.0.attn_q_norm.weight", 256),
        ("olmo2", "blk.1.attn_k_norm.weight", 64),
    ],
)
def test_a_vector_of_another_length_is_refused_by_its_name(
    kind: str, name: str, size: int, kernels: str, tmp_path: Path
) -> None:
    path = SavedGGUF(kind, Type.Q8_0, tmp_path).path
    old, new = (string(name) + struct.pack("<IQ", 1, length) for length in (size, 8))
    path.write_bytes(rewritten(path, old, new))

    with pytest.raises(ValueError, match=re.escape(f"{name} is (8,), the model's configuration says ({size},)")):
        load_model(EngineConfig(model=str(path), kv_cache_tokens=256, kernels=kernels), open_model(path))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["blk.0.attn_v.weight", "blk.1.ffn_up.weight"])
def test_rows_of_another_length_are_refused_by_the_tensors_name(name: str, tmp_path: Path) -> None:
    path = SavedGGUF("llama", Type.F32, tmp_path).path
    rows = 256 if "ffn" in name else 64
    old, new = (string(name) + struct.pack("<IQQ", 2, columns, rows) for columns in (256, 128))
    path.write_bytes(rewritten(path, old, new))

    with pytest.raises(ValueError, match=re.escape(f"{name} is ({rows}, 128)")):
        load_model(EngineConfig(model=str(path), kv_cache_tokens=256), open_model(path))


@pytest.mark.parametrize(
    ("key", "old", "new", "message"),
    [
        ("llama.expert_count", 4, 5, "expert_count is 5, but ffn_gate_exps has 4"),
        ("llama.expert_count", 4, 3, "expert_count is 3, but ffn_gate_exps has 4"),
        ("llama.expert_used_count", 2, 5, "expert_used_count is 5, but expert_count is 4"),
        ("llama.expert_used_count", 2, 0, "expert_used_count is 0, no whole number above 0"),
        ("llama.feed_forward_length", 256, 1 << 31, "feed_forward_length is 2147483648, but ffn_gate_exps has 256"),
        ("qwen3moe.expert_feed_forward_length", 256, 1 << 31, "expert_feed_forward_length is 2147483648, but ffn_gate"),
    ],
)
def test_experts_are_as_many_and_as_large_as_said(tmp_path: Path, key: str, old: int, new: int, message: str) -> None:
    path = SavedGGUF("mixtral" if key.startswith("llama") else "qwen3-moe", Type.Q8_0, tmp_path).path
    path.write_bytes(rewritten(path, whole(key, old), whole(key, new)))

    with pytest.raises(GGUFError, match=message):
        open_model(path)


def test_experts_in_tensors_of_their_own_are_refused_with_what_helps(saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "old.gguf"
    more = {"llama.expert_count": 1, "llama.expert_used_count": 1}
    copied(saved, path, more, rename=lambda name: re.sub(r"(ffn_(gate|up|down))\.weight", r"\1.0.weight", name))

    with pytest.raises(
        UnsupportedModelError, match=r"tensor for each expert.* before April 2024; convert the model anew"
    ):
        open_model(path)


def test_a_last_layer_does_not_speak_for_those_between(tmp_path: Path) -> None:
    path = SavedGGUF("llama", Type.Q4_1, tmp_path).path
    path.write_bytes(rewritten(path, whole("llama.block_count", 2), whole("llama.block_count", 9)))
    path.write_bytes(rewritten(path, string("blk.1.attn_norm.weight"), string("blk.8.attn_norm.weight")))

    with pytest.raises(GGUFError, match=r"block_count is 9, but there is no tensor blk\.2"):
        open_model(path)


def test_sizes_that_differ_by_layer_are_refused_by_their_key(tmp_path: Path) -> None:
    path = SavedGGUF("llama", Type.Q4_1, tmp_path, metadata={"llama.expert_count": [0, 4]}).path

    with pytest.raises(GGUFError, match=r"llama\.expert_count is \[0 4\], no whole number above 0"):
        open_model(path)


@pytest.mark.parametrize("factor", [1e7, 1e29])
def test_yarn_does_not_stretch_without_end(tmp_path: Path, factor: float) -> None:
    path = SavedGGUF("qwen2", Type.Q4_1, tmp_path).path
    key = string("qwen2.rope.scaling.factor") + struct.pack("<I", 6)
    path.write_bytes(rewritten(path, key + struct.pack("<f", 4.0), key + struct.pack("<f", factor)))

    with pytest.raises(GGUFError, match=r"rope\.scaling\.factor 1e\+\d+ makes a context of more than 16777216 tokens"):
        open_model(path)


def test_positions_of_a_model_of_windows_do_not_outgrow_its_weights(tmp_path: Path) -> None:
    path = SavedGGUF("phi3-windows", Type.Q4_1, tmp_path).path
    assert open_model(path).spec.context_length == 256
    path.write_bytes(rewritten(path, whole("phi3.context_length", 256), whole("phi3.context_length", 1 << 24)))

    with pytest.raises(GGUFError, match="a context of 16777216 tokens takes 4294967296 bytes of angles"):
        open_model(path)


def offset_of(content: bytes, name: str) -> tuple[int, int]:
    """Where in the file the offset of a tensor is written, and the offset."""
    place = content.index(string(name)) + len(string(name))
    [dimensions] = struct.unpack_from("<I", content, place)
    place += 4 + 8 * dimensions + 4
    return place, int(struct.unpack_from("<Q", content, place)[0])


@pytest.mark.parametrize(
    ("by", "message"),
    [
        (16, "the tensor 'blk.0.attn_q.weight' starts at {offset}, not aligned to 32 bytes"),
        (1, "the tensor 'blk.0.attn_q.weight' starts at {offset}, not aligned to 32 bytes"),
        (-32, "the tensors '.*' and 'blk.0.attn_q.weight' overlap"),
        (32, "the tensors 'blk.0.attn_q.weight' and '.*' overlap"),
        (1 << 40, "the file ends before the tensor 'blk.0.attn_q.weight' does"),
        ((1 << 63), "the file ends before the tensor 'blk.0.attn_q.weight' does"),
    ],
)
def test_places_that_are_not_aligned_overlap_or_are_outside_are_refused(
    saved: Path, tmp_path: Path, by: int, message: str
) -> None:
    content = bytearray(saved.read_bytes())
    place, offset = offset_of(bytes(content), "blk.0.attn_q.weight")
    struct.pack_into("<Q", content, place, offset + by)
    path = tmp_path / "moved.gguf"
    path.write_bytes(content)

    with pytest.raises(GGUFError, match=message.format(offset=offset + by)):
        open_model(path)


def test_two_tensors_at_one_place_are_refused(saved: Path, tmp_path: Path) -> None:
    content = bytearray(saved.read_bytes())
    first, _ = offset_of(bytes(content), "blk.0.attn_k.weight")
    _, other = offset_of(bytes(content), "blk.0.attn_v.weight")
    struct.pack_into("<Q", content, first, other)
    path = tmp_path / "moved.gguf"
    path.write_bytes(content)

    with pytest.raises(
        GGUFError, match=r"the tensors 'blk\.0\.attn_[kv]\.weight' and 'blk\.0\.attn_[kv]\.weight' overlap"
    ):
        open_model(path)


def test_an_alignment_of_the_file_counts(saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "aligned.gguf"
    copied(saved, path, more={"general.alignment": 4096})
    with pytest.raises(GGUFError, match="not aligned to 4096 bytes"):
        open_model(path)

    path.write_bytes(rewritten(path, whole("general.alignment", 4096), whole("general.alignment", 24)))
    with pytest.raises(GGUFError, match=r"general\.alignment is 24, no power of two"):
        open_model(path)


def test_a_tensor_without_a_place_is_refused(saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "more.gguf"
    copied(saved, path, more={"blk.0.attn_sinks.weight": np.zeros(8, dtype=np.float32)})

    with pytest.raises(UnsupportedModelError, match=r"'blk\.0\.attn_sinks\.weight' has no place in LlamaForCausalLM"):
        load_model(EngineConfig(model=str(path), kv_cache_tokens=256), open_model(path))


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.5, 0.999])
def test_a_file_that_is_cut_off_is_refused(saved: Path, tmp_path: Path, share: float) -> None:
    content = saved.read_bytes()
    path = tmp_path / "cut.gguf"
    path.write_bytes(content[: int(len(content) * share)])

    with pytest.raises(GGUFError, match=r"cut\.gguf"):
        open_model(path)


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


def peak_bytes() -> int:
    """The most memory that this process has had resident since ``reset_peak``."""
    status = Path("/proc/self/status").read_text("ascii")
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])  # type: ignore[index]


def reset_peak() -> int:
    """Starts the measurement anew, without free memory that would hide an allocation; returns what is resident now."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", "ascii")
    return peak_bytes()


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
