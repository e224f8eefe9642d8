"""Where a model comes from: a Hugging Face directory or a GGUF file, behind one interface."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from engine.gguf.checkpoint import GGUFCheckpoint
from engine.gguf.configuration import config_of, layout_of
from engine.gguf.file import GGUFFile
from engine.model.checkpoint import Checkpoint
from engine.model.configuration import gguf_spec, read_spec
from engine.model.family import FAMILIES
from engine.model.names import TensorNames
from engine.model.spec import ModelSpec
from engine.quant.blocks import BlockMatrix

GGUF_SUFFIX = ".gguf"


class TensorSource(Protocol):
    """Named tensors of an open checkpoint, whose files stay mapped until the end of the ``with`` block."""

    device: torch.device

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def __contains__(self, name: str) -> bool: ...

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of the tensor ``name``. Raises KeyError."""
        ...

    def tensor(self, name: str, dtype: torch.dtype) -> Tensor:
        """The tensor ``name`` in ``dtype``. Raises KeyError."""
        ...

    def part(self, name: str, dtype: torch.dtype, *kept: slice) -> Tensor:
        """What is ``kept`` of each dimension of the tensor ``name``. Raises KeyError."""
        ...

    def blocks(self, names: list[str]) -> BlockMatrix | None:
        """The quantised matrices ``names``, one below the other and not unpacked; None if one is not quantised."""
        ...

    def check_all_read(self) -> None:
        """Raises UnsupportedModelError for a tensor that was not read although the format has no optional ones."""
        ...


class ModelSource(Protocol):
    """A model on disk."""

    path: Path
    spec: ModelSpec
    names: TensorNames

    def checkpoint(self, device: torch.device) -> TensorSource:
        """Opens the weights, for use in a ``with`` block. Tensors are put on ``device`` when they are read.

        Raises FileNotFoundError if the model has no file with weights.
        """
        ...


class ModelDirectory:
    """A Hugging Face directory: config.json and safetensors."""

    def __init__(self, directory: Path) -> None:
        """Raises FileNotFoundError, UnsupportedModelError, or KeyError for a key that config.json lacks."""
        self.path = directory
        self.spec = read_spec(directory)
        self.names = FAMILIES[self.spec.architecture].names

    def checkpoint(self, device: torch.device) -> TensorSource:
        """Opens the weights. Raises FileNotFoundError without safetensors."""
        return Checkpoint(self.path, device)


class GGUFModel:
    """A GGUF file, or the first of those that one was split into."""

    def __init__(self, path: Path) -> None:
        """Raises FileNotFoundError, GGUFError, or UnsupportedModelError."""
        self.path = path
        self._file = GGUFFile.open(path)
        self.spec = gguf_spec(config_of(self._file))
        self.names = layout_of(self._file).names

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Metadata by key."""
        return self._file.metadata

    def checkpoint(self, device: torch.device) -> TensorSource:
        """The weights, which are mapped already."""
        return GGUFCheckpoint(self._file, self.spec, device)


def is_gguf(path: Path) -> bool:
    """Whether ``path`` names a GGUF file, by its suffix."""
    return path.suffix == GGUF_SUFFIX


def open_model(path: Path) -> ModelSource:
    """The model at ``path``. Raises as ``ModelDirectory`` and ``GGUFModel`` do."""
    return GGUFModel(path) if is_gguf(path) else ModelDirectory(path)
