"""All products of a model on a card, for one engine: what serves which matrix is decided by its kind alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.kernels.triton.experts import experts_mix
from engine.kernels.triton.matmul import matmul, new_arrivals
from engine.kernels.triton.quantised import quantised_matmul
from engine.kernels.triton.vector import vector_matmul
from engine.model.weights import ExpertWeights, Matrix, plain
from engine.quant.matrix import PackedMatrix


class Products:
    """``linear`` and ``experts`` of the kernels of one engine, which runs one stream at a time.

    ``deterministic``: a row's numbers do not depend on how many others there are.
    """

    def __init__(self, device: torch.device, deterministic: bool) -> None:
        self._deterministic = deterministic
        self._arrivals = new_arrivals(device)

    def linear(self, x: Tensor, weight: Matrix, bias: Tensor | None) -> Tensor:
        """``x`` [rows, inputs] times ``weight`` [outputs, inputs] transposed, plus ``bias`` [outputs]."""
        if isinstance(weight, PackedMatrix):
            return quantised_matmul(_rows(x), weight, bias, self._arrivals, fixed=self._deterministic)
        if self._deterministic:
            return matmul(_rows(x), plain(weight), bias, self._arrivals)
        if x.shape[0] == 1 and x.is_cuda:
            return vector_matmul(_rows(x), plain(weight), bias)
        return F.linear(x, plain(weight), bias)

    def experts(self, x: Tensor, weights: ExpertWeights, activate: Callable[[Tensor], Tensor]) -> Tensor:
        """A mixture of experts of ``x`` [tokens, hidden]; ``activate`` makes [rows, 2 * n] to [rows, n]."""
        scores = self.linear(x, weights.router, None)
        return experts_mix(x, weights, scores, activate, fixed=self._deterministic)


def _rows(x: Tensor) -> Tensor:
    """With the numbers of each row next to each other."""
    return x if x.stride(-1) == 1 else x.contiguous()
