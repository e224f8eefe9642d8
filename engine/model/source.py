"""The sources of a model, behind one interface: a Hugging Face directory or a GGUF file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from engine.gguf.checkpoint import GGUFCheckpoint
from engine.gguf.configuration import check_positions, config_of, layout_of
from engine.gguf.file import GGUFFile
from engine.model.checkpoint import Checkpoint
from engine.model.configuration import gguf_spec, read_spec
from engine.model.family import FAMILIES
from engine.model.names import TensorNames
from engine.model.spec import ModelSpec
from engine.quant.blocks import BlockMatrix

GGUF_SUFFIX = ".gguf"


class TensorSource(Protocol):
    """Named tensors of an open checkpoint, whose files stay memory-mapped until the end of the ``with`` block."""

    device: torch.device

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def __contains__(self, name: str) -> bool: ...

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns the shape of the tensor ``name``. Raises KeyError if there is none."""
        ...

    def tensor(self, name: str, dtype: torch.dtype) -> Tensor:
        """Returns the tensor ``name`` in ``dtype``. Raises KeyError if there is none."""
        ...

    def part(self, name: str, dtype: torch.dtype, *kept: slice) -> Tensor:
        """Returns a part of the tensor ``name`` in ``dtype``. ``kept`` has a slice for each dimension. Raises KeyError
        if there is none."""
        ...

    def blocks(self, names: list[str]) -> BlockMatrix | None:
        """Returns the matrices ``names``, stacked by rows, in their quantised form; None if one of them is not
        quantised."""
        ...

    def check_all_read(self) -> None:
        """Raises UnsupportedModelError if a tensor was not read, for formats in which every tensor is needed."""
        ...


class ModelSource(Protocol):
    """A model on disk: its spec and its weights."""

    path: Path
    spec: ModelSpec
    names: TensorNames

    def checkpoint(self, device: torch.device) -> TensorSource:
        """Opens the weights, for use in a ``with`` block. Tensors are put on ``device`` when they are read.

        Raises FileNotFoundError if the model has no file with weights.
        """
        ...


class ModelDirectory:
    """A model in a Hugging Face directory: config.json and safetensors. Implements ``ModelSource``."""

    def __init__(self, directory: Path) -> None:
        """Raises FileNotFoundError, UnsupportedModelError, or KeyError for a key that config.json lacks."""
        self.path = directory
        self.spec = read_spec(directory)
        self.names = FAMILIES[self.spec.architecture].names

    def checkpoint(self, device: torch.device) -> TensorSource:
        """Opens the weights. Raises FileNotFoundError without a safetensors file."""
        return Checkpoint(self.path, device)


class GGUFModel:
    """A model in a GGUF file. ``path`` is that of the file, or of the first part of a split one. Implements
    ``ModelSource``."""

    def __init__(self, path: Path) -> None:
        """Raises FileNotFoundError, GGUFError, or UnsupportedModelError."""
        self.path = path
        self._file = GGUFFile.open(path)
        self.spec = gguf_spec(config_of(self._file))
        check_positions(self._file, self.spec)
        self.names = layout_of(self._file).names

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The metadata of the file by key."""
        return self._file.metadata

    def checkpoint(self, device: torch.device) -> TensorSource:
        """Returns the weights, which are already memory-mapped."""
        return GGUFCheckpoint(self._file, self.spec, device)


def is_gguf(path: Path) -> bool:
    """Returns whether ``path`` names a GGUF file, by its suffix."""
    return path.suffix == GGUF_SUFFIX


def open_model(path: Path) -> ModelSource:
    """Returns the model at ``path``, a directory or a GGUF file. Raises FileNotFoundError, GGUFError,
    UnsupportedModelError, or KeyError for a key that config.json lacks."""
    return GGUFModel(path) if is_gguf(path) else ModelDirectory(path)
