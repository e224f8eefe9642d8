"""How large a model is, read from the headers of its weights without loading them."""

from __future__ import annotations

import json
import math
from pathlib import Path

from engine.gguf.file import GGUFFile


def parameters(directory: Path) -> int:
    """Number of parameters in a Hugging Face directory's safetensors files, or in a GGUF file; tied ones are stored,
    and count, once.

    Raises FileNotFoundError where there are none, ValueError for a header that does not parse.
    """
    if directory.suffix == ".gguf":
        return sum(math.prod(tensor.shape) for tensor in GGUFFile.open(directory).tensors.values())
    files = sorted(directory.glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(f"no *.safetensors in {directory}")
    return sum(_count(file) for file in files)


def _count(file: Path) -> int:
    # https://github.com/huggingface/safetensors#format: a little-endian u64, then so many bytes of JSON.
    with file.open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
