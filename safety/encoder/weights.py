"""``Weights``: the tensors of an encoder, read from a safetensors file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from safety.encoder.architecture import Architecture, UnsupportedEncoderError
from safety.encoder.quantised_matrix import QuantisedMatrix, narrowed, quantised

SCALE = ".scale"
"""The suffix of the tensor that has the scales of an int8 matrix, float32 [rows]."""

PREFIXES = ("", "bert.")
"""What may stand before the names of all tensors: files of a ``BertModel``, and of a model that contains one."""

Stored = Mapping[str, NDArray[np.generic]]


class Weights:
    """The tensors of a file by name. Matrices may be float32, or int8 with the tensor ``NAME.scale`` beside them.
    ``prefix`` stands before their names in the file."""

    def __init__(self, stored: Stored, prefix: str = "") -> None:
        self._stored = stored
        self._prefix = prefix

    @classmethod
    def read(cls, path: Path) -> Weights:
        """Reads a safetensors file. Raises OSError, and UnsupportedEncoderError for a file that is no safetensors
        file."""
        try:
            stored = load_file(path)
        except SafetensorError as error:
            raise UnsupportedEncoderError(f"{path} is no safetensors file: {error}") from error
        probe = "embeddings.word_embeddings.weight"
        return cls(stored, next((prefix for prefix in PREFIXES if prefix + probe in stored), ""))

    def names(self) -> set[str]:
        """Returns the names of the tensors, without those of scales."""
        return {name.removeprefix(self._prefix) for name in self._stored if not name.endswith(SCALE)}

    def __contains__(self, name: object) -> bool:
        """Returns whether there is a tensor with this name."""
        return isinstance(name, str) and (self._prefix + name in self._stored or name in self._stored)

    def check(self, architecture: Architecture) -> None:
        """Raises UnsupportedEncoderError if a tensor of ``architecture`` is missing or has another shape."""
        for name, shape in architecture.shapes():
            found = self._tensor(name).shape
            if found != shape:
                raise UnsupportedEncoderError(f"{name} has the shape {list(found)}, not {list(shape)}")

    def dense(self, name: str) -> NDArray[np.float32]:
        """Returns a tensor in float32. Raises UnsupportedEncoderError if there is none with this name."""
        tensor = self._tensor(name)
        if tensor.dtype == np.int8:
            return self._pair(name).dequantised()
        return tensor.astype(np.float32, copy=False)

    def quantised(self, name: str, max_code: int) -> QuantisedMatrix:
        """Returns a matrix quantised by row, with codes from -``max_code`` to ``max_code``. Raises
        UnsupportedEncoderError if there is none with this name."""
        if self._tensor(name).dtype == np.int8:
            return narrowed(self._pair(name), max_code)
        return quantised(self.dense(name), max_code)

    def _pair(self, name: str) -> QuantisedMatrix:
        codes, scale = self._tensor(name), self._tensor(name + SCALE)
        if scale.shape != codes.shape[:1]:
            raise UnsupportedEncoderError(f"{name}{SCALE} must have one number for each row of {name}")
        return QuantisedMatrix(codes.astype(np.int8, copy=False), scale.astype(np.float32, copy=False))

    def _tensor(self, name: str) -> NDArray[np.generic]:
        tensor = self._stored.get(self._prefix + name)
        if tensor is None and (tensor := self._stored.get(name)) is None:
            raise UnsupportedEncoderError(f"the file has no tensor {name}")
        return tensor
