"""GGUF files that are damaged are refused by what is wrong with them."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engine.backend import load_model
from engine.config import EngineConfig
from engine.gguf.errors import GGUFError
from engine.model.source import open_model
from engine.model.spec import UnsupportedModelError
from tests.engine.gguf_bytes import copied, rewritten, string, whole
from tests.engine.gguf_files import SavedGGUF, Type


@pytest.fixture
def damaged(gguf_path: Path, tmp_path: Path) -> Callable[[bytes, bytes], Path]:
    """The file with some bytes, which are there, replaced by as many others."""

    def replaced(old: bytes, new: bytes) -> Path:
        path = tmp_path / "damaged.gguf"
        path.write_bytes(rewritten(gguf_path, old, new))
        return path

    return replaced


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


def test_experts_in_tensors_of_their_own_are_refused_with_what_helps(gguf_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "old.gguf"
    more = {"llama.expert_count": 1, "llama.expert_used_count": 1}
    copied(gguf_path, path, more, rename=lambda name: re.sub(r"(ffn_(gate|up|down))\.weight", r"\1.0.weight", name))

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
    gguf_path: Path, tmp_path: Path, by: int, message: str
) -> None:
    content = bytearray(gguf_path.read_bytes())
    place, offset = offset_of(bytes(content), "blk.0.attn_q.weight")
    struct.pack_into("<Q", content, place, offset + by)
    path = tmp_path / "moved.gguf"
    path.write_bytes(content)

    with pytest.raises(GGUFError, match=message.format(offset=offset + by)):
        open_model(path)


def test_two_tensors_at_one_place_are_refused(gguf_path: Path, tmp_path: Path) -> None:
    content = bytearray(gguf_path.read_bytes())
    first, _ = offset_of(bytes(content), "blk.0.attn_k.weight")
    _, other = offset_of(bytes(content), "blk.0.attn_v.weight")
    struct.pack_into("<Q", content, first, other)
    path = tmp_path / "moved.gguf"
    path.write_bytes(content)

    with pytest.raises(
        GGUFError, match=r"the tensors 'blk\.0\.attn_[kv]\.weight' and 'blk\.0\.attn_[kv]\.weight' overlap"
    ):
        open_model(path)


def test_an_alignment_of_the_file_counts(gguf_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "aligned.gguf"
    copied(gguf_path, path, more={"general.alignment": 4096})
    with pytest.raises(GGUFError, match="not aligned to 4096 bytes"):
        open_model(path)

    path.write_bytes(rewritten(path, whole("general.alignment", 4096), whole("general.alignment", 24)))
    with pytest.raises(GGUFError, match=r"general\.alignment is 24, no power of two"):
        open_model(path)


def test_a_tensor_without_a_place_is_refused(gguf_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "more.gguf"
    copied(gguf_path, path, more={"blk.0.attn_sinks.weight": np.zeros(8, dtype=np.float32)})

    with pytest.raises(UnsupportedModelError, match=r"'blk\.0\.attn_sinks\.weight' has no place in LlamaForCausalLM"):
        load_model(EngineConfig(model=str(path), kv_cache_tokens=256), open_model(path))


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.5, 0.999])
def test_a_file_that_is_cut_off_is_refused(gguf_path: Path, tmp_path: Path, share: float) -> None:
    content = gguf_path.read_bytes()
    path = tmp_path / "cut.gguf"
    path.write_bytes(content[: int(len(content) * share)])

    with pytest.raises(GGUFError, match=r"cut\.gguf"):
        open_model(path)
