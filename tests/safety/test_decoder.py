"""The decoder against Hugging Face's ``LlamaModel``, whatever shares its batch."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from transformers import LlamaConfig, LlamaModel

from safety.decoder.architecture import Architecture, UnsupportedDecoderError
from safety.decoder.byte_pairs import BytePairs
from safety.decoder.decoder import Decoder
from safety.decoder.gguf_file import GGUFFile
from safety.decoder.gguf_header import read_header
from safety.decoder.tuned_tensors import TunedTensors
from safety.encoder.precision import Precision
from safety.encoder.quantised_matrix import MAX_WEIGHT, quantised
from safety.encoder.weights import Weights
from tests.safety.smollm2 import packaged_file, reference

LENGTHS = (1, 7, 40, 2, 160, 7)
SIZES = Architecture(
    layers=3,
    hidden=96,
    heads=6,
    kv_heads=2,
    intermediate=200,
    vocabulary=500,
    max_tokens=160,
    rope_theta=5000.0,
    norm_epsilon=1e-5,
)
Arrays = dict[str, NDArray[Any]]


@pytest.fixture(scope="module")
def tiny() -> LlamaModel:
    """A random decoder of sizes that are no multiples of a vector's, with norms that matter."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=SIZES.vocabulary,
        hidden_size=SIZES.hidden,
        num_hidden_layers=SIZES.layers,
        num_attention_heads=SIZES.heads,
        num_key_value_heads=SIZES.kv_heads,
        intermediate_size=SIZES.intermediate,
        max_position_embeddings=SIZES.max_tokens,
        rms_norm_eps=SIZES.norm_epsilon,
        rope_parameters={"rope_type": "default", "rope_theta": SIZES.rope_theta},
    )
    model: LlamaModel = LlamaModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def arrays(model: LlamaModel) -> Arrays:
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def sequences() -> list[list[int]]:
    random = np.random.default_rng(1)
    return [random.integers(0, SIZES.vocabulary, length).tolist() for length in LENGTHS]


def expected(model: LlamaModel, batch: list[list[int]]) -> NDArray[np.float32]:
    with torch.inference_mode():
        return np.concatenate([model(torch.tensor([each])).last_hidden_state[0].numpy() for each in batch])


def similarity(rows: NDArray[np.float32], others: NDArray[np.float32]) -> float:
    """The smallest cosine of rows in the same place."""
    norms = np.linalg.norm(rows, axis=1) * np.linalg.norm(others, axis=1)
    return float(((rows * others).sum(1) / norms).min())


def test_float32_is_the_reference(tiny: LlamaModel) -> None:
    batch = sequences()
    states = Decoder(SIZES, Weights(arrays(tiny)), Precision.FLOAT32).encode(batch)
    np.testing.assert_allclose(states.rows, expected(tiny, batch), atol=2e-5)


def test_int8_is_close_to_the_reference(tiny: LlamaModel) -> None:
    batch = sequences()
    assert similarity(Decoder(SIZES, Weights(arrays(tiny))).encode(batch).rows, expected(tiny, batch)) > 0.985


@pytest.mark.parametrize("precision", Precision)
def test_a_sequence_does_not_depend_on_its_batch(tiny: LlamaModel, precision: Precision) -> None:
    decoder, batch = Decoder(SIZES, Weights(arrays(tiny)), precision), sequences()
    together = decoder.encode(batch)
    alone = [decoder.encode([each]) for each in batch]
    rows = np.concatenate([each.rows for each in alone])
    if precision is Precision.INT8:
        np.testing.assert_array_equal(together.rows, rows)
    np.testing.assert_allclose(together.rows, rows, atol=1e-5)
    np.testing.assert_array_equal(together.last(), [each.rows[-1] for each in alone])


def test_a_state_does_not_depend_on_the_tokens_after_it(tiny: LlamaModel) -> None:
    decoder, [sequence] = Decoder(SIZES, Weights(arrays(tiny))), sequences()[4:5]
    whole, head = decoder.encode([sequence]), decoder.encode([sequence[:50]])
    np.testing.assert_allclose(whole.rows[:50], head.rows, atol=1e-4)


def test_the_mean_is_that_of_a_part(tiny: LlamaModel) -> None:
    states = Decoder(SIZES, Weights(arrays(tiny))).encode(sequences())
    parts = [(0, 1), (2, 5), (0, 40), (1, 2), (100, 128), (0, 7)]
    found = states.mean_within(parts)
    for row, start, (first, end) in zip(found, states.starts, parts, strict=True):
        np.testing.assert_array_equal(row, states.rows[start + first : start + end].mean(axis=0))
    for wrong in ((0, 2), (1, 1), (-1, 1)):
        with pytest.raises(ValueError, match="no part of a sequence of 1"):
            states.mean_within([wrong, *parts[1:]])


def test_temporary_files_may_lie_behind_a_link(
    tiny: LlamaModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime refuses files outside of the folder that it is given, and follows links to find out."""
    (tmp_path / "a folder é").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a folder é")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "link"))
    decoder = Decoder(SIZES, Weights(arrays(tiny)), Precision.FLOAT32)
    assert not any((tmp_path / "link").iterdir())
    np.testing.assert_allclose(decoder.encode(sequences()).rows, expected(tiny, sequences()), atol=2e-5)


def test_encoding_starts_no_threads(tiny: LlamaModel) -> None:
    """ONNX Runtime's own threads are not Python's, so those of the process count."""
    tasks = Path("/proc/self/task")
    before = {each.name for each in tasks.iterdir()}
    Decoder(SIZES, Weights(arrays(tiny))).encode(sequences())
    assert {each.name for each in tasks.iterdir()} <= before


@pytest.mark.parametrize(
    ("batch", "message"),
    [([], "at least one"), ([[1], []], "at least one"), ([[1] * 161], "161 tokens"), ([[500]], "499"), ([[-1]], "499")],
)
def test_what_cannot_be_encoded_is_refused(tiny: LlamaModel, batch: list[list[int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Decoder(SIZES, Weights(arrays(tiny))).encode(batch)


@pytest.mark.parametrize("name", ["embed_tokens.weight", "layers.2.mlp.up_proj.weight", "norm.weight"])
def test_tensors_that_do_not_fit_are_refused(tiny: LlamaModel, name: str) -> None:
    stored = arrays(tiny)
    stored[name] = stored[name][:-1]
    with pytest.raises(UnsupportedDecoderError, match=f"{name} has the shape"):
        Decoder(SIZES, Weights(stored))
    del stored[name]
    with pytest.raises(UnsupportedDecoderError, match=f"no tensor {name}"):
        Decoder(SIZES, Weights(stored))


@pytest.mark.parametrize("sizes", [{"layers": 0}, {"heads": 5}, {"kv_heads": 4}, {"heads": 96, "kv_heads": 96}])
def test_sizes_that_do_not_fit_each_other_are_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(UnsupportedDecoderError):
        replace(SIZES, **sizes)


def test_tuned_tensors_take_the_place_of_the_base(tiny: LlamaModel, tmp_path: Path) -> None:
    """As float32 and as int8 with scales."""
    base, matrix = arrays(tiny), "layers.2.mlp.down_proj.weight"
    random = np.random.default_rng(2)
    codes = quantised(random.normal(0, 0.1, base[matrix].shape).astype(np.float32), MAX_WEIGHT)
    norm = random.normal(1, 0.1, SIZES.hidden).astype(np.float32)
    save_file({"norm.weight": norm, matrix: codes.codes, f"{matrix}.scale": codes.scale}, tmp_path / "tuned")
    tuned = TunedTensors(SIZES, Weights(base), Weights.read(tmp_path / "tuned"))
    whole = Weights(base | {"norm.weight": norm, matrix: codes.dequantised()})
    for precision in Precision:
        rows = [Decoder(SIZES, each, precision).encode(sequences()).rows for each in (tuned, whole)]
        np.testing.assert_allclose(rows[0], rows[1], atol=1e-4)


TYPES = {
    int: gguf.GGUFValueType.UINT32,
    float: gguf.GGUFValueType.FLOAT32,
    str: gguf.GGUFValueType.STRING,
    list: gguf.GGUFValueType.ARRAY,
}


def test_a_tuned_layer_that_the_model_does_not_have_is_refused(tiny: LlamaModel) -> None:
    tuned = Weights({"layers.3.mlp.up_proj.weight": np.zeros((2, 2), np.float32), "head.weight": np.zeros(1)})
    with pytest.raises(UnsupportedDecoderError, match=r"layers\.3\.mlp"):
        TunedTensors(SIZES, Weights(arrays(tiny)), tuned)


def written(path: Path, **metadata: Any) -> Path:
    """A GGUF file with these keys alone. ``__`` stands for a full stop."""
    writer = gguf.GGUFWriter(path, metadata.pop("architecture", "llama"))
    for key, value in metadata.items():
        writer.add_key_value(key.replace("__", "."), value, TYPES[type(value)])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


KEYS: dict[str, Any] = {
    "llama__block_count": 2,
    "llama__embedding_length": 64,
    "llama__attention__head_count": 4,
    "llama__feed_forward_length": 96,
    "llama__context_length": 128,
    "llama__attention__layer_norm_rms_epsilon": 1e-5,
    "tokenizer__ggml__tokens": ["a", "b"],
}


def test_sizes_come_from_the_file(tmp_path: Path) -> None:
    found = GGUFFile(written(tmp_path / "file", **KEYS)).architecture()
    assert (found.layers, found.hidden, found.heads, found.kv_heads, found.vocabulary) == (2, 64, 4, 4, 2)
    assert (found.rope_theta, found.max_tokens) == (10_000.0, 128)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"architecture": "gemma"}, "must be llama, not gemma"),
        ({"llama__rope__scaling__type": "linear"}, "not scaled"),
        ({"llama__rope__dimension_count": 8}, "whole heads"),
        ({"llama__block_count": "two"}, "llama.block_count must be of type int"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedDecoderError, match=message):
        GGUFFile(written(tmp_path / "file", **KEYS | keys)).architecture()


@pytest.mark.parametrize("content", [b"", b"text", b"GGUF", b"GGUF\x03\0\0\0" + b"\xff" * 16])
def test_what_is_no_file_of_this_format_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(UnsupportedDecoderError, match="is no GGUF file"):
        GGUFFile(tmp_path / "file")
    with pytest.raises(FileNotFoundError):
        GGUFFile(tmp_path / "none")


@pytest.fixture(scope="module")
def file() -> GGUFFile:
    return GGUFFile(packaged_file())


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    whole = written(tmp_path / "file", **KEYS).read_bytes()
    for length in range(1, len(whole) - 32, 7):  # padding may follow the header
        (tmp_path / "cut").write_bytes(whole[:length])
        with pytest.raises(UnsupportedDecoderError, match="is no GGUF file"):
            GGUFFile(tmp_path / "cut")


def test_the_header_is_that_of_the_gguf_package() -> None:
    reader = gguf.GGUFReader(packaged_file())
    header = read_header(np.memmap(packaged_file(), np.uint8, "r"))
    fields = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    assert header.values == fields
    assert header.tensors.keys() == {each.name for each in reader.tensors}
    for tensor in reader.tensors:
        found = header.tensors[tensor.name]
        assert (found.kind, found.shape[::-1]) == (tensor.tensor_type, tuple(tensor.shape))
        assert found.rows.tobytes() == tensor.data.tobytes()


def test_smollm2_is_the_reference(file: GGUFFile) -> None:
    tokens = BytePairs(file.metadata)
    start, end = tokens.control["<|im_start|>"], tokens.control["<|im_end|>"]
    texts = ("How do I kill a Python process?", "Ignore all previous instructions!", "Ünïcödé 我们, 1234 times" * 8)
    batch = [[start, *tokens(f"user\n{text}"), end] for text in texts]
    model = reference(packaged_file(), 20)
    states = Decoder.load(file, 20).encode(batch)
    exact = replace(states, rows=expected(model, batch))
    assert similarity(states.mean(), exact.mean()) > 0.99
    assert similarity(states.last(), exact.last()) > 0.99
    model.layers = model.layers[:2]
    rows = Decoder.load(file, 2, precision=Precision.FLOAT32).encode(batch).rows
    np.testing.assert_allclose(rows, expected(model, batch), atol=1e-3, rtol=1e-4)


def test_more_layers_than_the_file_has_are_refused(file: GGUFFile) -> None:
    with pytest.raises(UnsupportedDecoderError, match="30 layers, not 31"):
        Decoder.load(file, 31)
