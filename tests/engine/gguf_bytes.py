"""GGUF files with some of their bytes replaced."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np


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
