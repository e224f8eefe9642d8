"""``CheckedTensors``: the tensors of a decoder, whose shapes are checked as they are taken."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from safety.decoder.architecture import Architecture, UnsupportedDecoderError
from safety.encoder.architecture import UnsupportedEncoderError
from safety.encoder.linears import Tensors
from safety.encoder.quantised_matrix import QuantisedMatrix


class CheckedTensors:
    """Checks each tensor when it is taken: to read all of them first would dequantise each twice. ``dense`` and
    ``quantised`` raise UnsupportedDecoderError for a tensor that is missing or has another shape."""

    def __init__(self, architecture: Architecture, tensors: Tensors) -> None:
        self._shapes = dict(architecture.shapes())
        self._tensors = tensors

    def dense(self, name: str) -> NDArray[np.float32]:
        """Returns a tensor in float32."""
        try:
            tensor = self._tensors.dense(name)
        except UnsupportedEncoderError as error:
            raise UnsupportedDecoderError(str(error)) from error
        self._check(name, tensor.shape)
        return tensor

    def quantised(self, name: str, max_code: int) -> QuantisedMatrix:
        """Returns a matrix quantised by row, with codes from -``max_code`` to ``max_code``."""
        try:
            matrix = self._tensors.quantised(name, max_code)
        except UnsupportedEncoderError as error:
            raise UnsupportedDecoderError(str(error)) from error
        self._check(name, matrix.codes.shape)
        return matrix

    def _check(self, name: str, found: tuple[int, ...]) -> None:
        if found != (shape := self._shapes[name]):
            raise UnsupportedDecoderError(f"{name} has the shape {list(found)}, not {list(shape)}")
