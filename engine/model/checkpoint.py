"""``Checkpoint``: reads the tensors of a Hugging Face directory by name, from one safetensors file or from shards with
an index."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import safe_open
from torch import Tensor


class Checkpoint:
    """An open checkpoint; its files are memory-mapped until the end of the ``with`` block."""

    def __init__(self, directory: Path, device: torch.device) -> None:
        """Raises FileNotFoundError where there are no safetensors."""
        self._directory = directory
        self.device = device
        self._names = _tensor_files(directory)
        self._open: dict[str, Any] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._open.clear()
        self._stack.close()

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns the shape of the tensor ``name``. Raises KeyError if there is none."""
        return tuple(self._file(name).get_slice(name).get_shape())

    def tensor(self, name: str, dtype: torch.dtype) -> Tensor:
        """Returns the tensor ``name``, converted to ``dtype``. Raises KeyError if there is none."""
        found: Tensor = self._file(name).get_tensor(name)
        return found.to(self.device, dtype)

    def part(self, name: str, dtype: torch.dtype, *kept: slice) -> Tensor:
        """Returns a part of the tensor ``name``, converted to ``dtype``; nothing else is read. ``kept`` has a slice for
        each dimension. Raises KeyError if there is none."""
        if all(piece == slice(0, size) for piece, size in zip(kept, self.shape(name), strict=True)):
            return self.tensor(name, dtype)  # not copied, and so stays mapped
        found: Tensor = self._file(name).get_slice(name)[kept]
        return found.to(self.device, dtype)

    def blocks(self, names: list[str]) -> None:
        """Returns None: weights of a checkpoint are floating-point numbers, not quantised matrices."""
        return

    def check_all_read(self) -> None:
        """Does nothing: published checkpoints have tensors that inference does not need."""

    def _file(self, name: str) -> Any:
        if name not in self._names:
            raise KeyError(f"{self._directory} has no tensor {name!r}")
        file = self._names[name]
        if file not in self._open:
            self._open[file] = self._stack.enter_context(safe_open(self._directory / file, framework="pt"))
        return self._open[file]


def _tensor_files(directory: Path) -> dict[str, str]:
    """File name of each tensor."""
    index = directory / "model.safetensors.index.json"
    if index.exists():
        return dict(json.loads(index.read_text("utf-8"))["weight_map"])
    single = directory / "model.safetensors"
    if not single.exists():
        raise FileNotFoundError(f"{directory} has neither model.safetensors nor model.safetensors.index.json")
    with safe_open(single, framework="pt") as file:
        return dict.fromkeys(file.keys(), single.name)
