"""``TunedTensors``: the tensors of a decoder some of which were trained further."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from safety.decoder.architecture import Architecture, UnsupportedDecoderError
from safety.encoder.linears import Tensors
from safety.encoder.quantised_matrix import QuantisedMatrix
from safety.encoder.weights import Weights


class TunedTensors:
    """The tensors of ``tuned``, which may be a part of the model's, and for all others those of ``base``. It implements
    ``Tensors``."""

    def __init__(self, architecture: Architecture, base: Tensors, tuned: Weights) -> None:
        """Raises UnsupportedDecoderError if ``tuned`` has a tensor of a layer that ``architecture`` does not have,
        which would have no effect. It may have others, such as those of a head."""
        known = {name for name, _ in architecture.shapes()}
        if unknown := sorted(name for name in tuned.names() - known if name.startswith("layers.")):
            raise UnsupportedDecoderError(f"the tuned tensor {unknown[0]} is none of the model's")
        self._base = base
        self._tuned = tuned

    def dense(self, name: str) -> NDArray[np.float32]:
        return self._of(name).dense(name)

    def quantised(self, name: str, max_code: int) -> QuantisedMatrix:
        return self._of(name).quantised(name, max_code)

    def _of(self, name: str) -> Tensors:
        return self._tuned if name in self._tuned else self._base
