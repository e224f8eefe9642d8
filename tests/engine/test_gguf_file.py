"""GGUF files are read as they were written, in one part or several, and what cannot be read of a list is refused."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from engine.gguf.errors import GGUFError
from engine.gguf.file import GGUFFile
from tests.engine.gguf_bytes import string
from tests.engine.peak_memory import peak_bytes, reset_peak

ARRAY, STRING = gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.STRING


def test_metadata_and_shapes_are_read(gguf_path: Path) -> None:
    file = GGUFFile.open(gguf_path)

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
def test_parts_of_a_split_file_are_one(gguf_path: Path, tmp_path: Path, split: int) -> None:
    reader = gguf.GGUFReader(gguf_path)
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

    whole_file = GGUFFile.open(gguf_path)
    assert found.tensors.keys() == whole_file.tensors.keys()
    assert all(torch.equal(tensor.raw, whole_file.tensors[name].raw) for name, tensor in found.tensors.items())
    if split > 1:
        with pytest.raises(GGUFError, match="part 2 of a split file; give the first"):
            GGUFFile.open(tmp_path / f"model-00002-of-{split:05}.gguf")
        (tmp_path / f"model-00003-of-{split:05}.gguf").unlink()
        with pytest.raises(FileNotFoundError):
            GGUFFile.open(first)
