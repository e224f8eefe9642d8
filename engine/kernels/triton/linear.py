"""``Products``: the matrix products of a model on a GPU. The kind of a matrix decides which kernel is used."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.kernels.triton.embedding import look_up
from engine.kernels.triton.experts import experts_mix
from engine.kernels.triton.grouped import grouped_matmul
from engine.kernels.triton.matmul import matmul, new_arrivals
from engine.kernels.triton.quantised import quantised_matmul
from engine.kernels.triton.vector import vector_matmul
from engine.model.weights import ExpertWeights, Matrix, plain
from engine.quant.matrix import PackedMatrix
from engine.quant.packed_groups import PackedGroups


class Products:
    """The operations ``linear``, ``embedding`` and ``experts`` of one engine's kernels, for one CUDA stream.

    ``deterministic``: a row's result does not depend on the number of rows.
    """

    def __init__(self, device: torch.device, deterministic: bool) -> None:
        self._deterministic = deterministic
        self._arrivals = new_arrivals(device)

    def linear(self, x: Tensor, weight: Matrix, bias: Tensor | None) -> Tensor:
        """Returns ``x`` [rows, inputs] times ``weight`` [outputs, inputs] transposed, plus ``bias`` [outputs]. Raises
        TypeError for a matrix that must be dequantised first, and ValueError as ``quantised_matmul`` does."""
        if isinstance(weight, PackedMatrix):
            return quantised_matmul(_rows(x), weight, bias, self._arrivals, fixed=self._deterministic)
        if isinstance(weight, PackedGroups):
            return grouped_matmul(_rows(x), weight, bias, self._arrivals, fixed=self._deterministic)
        if self._deterministic:
            return matmul(_rows(x), plain(weight), bias, self._arrivals)
        if x.shape[0] == 1 and x.is_cuda:
            return vector_matmul(_rows(x), plain(weight), bias)
        return F.linear(x, plain(weight), bias)

    def embedding(self, tokens: Tensor, table: Matrix, dtype: torch.dtype) -> Tensor:
        """Returns the rows ``tokens`` [count] of ``table`` [vocab, hidden], in ``dtype``. Raises TypeError for a table
        that must be dequantised first."""
        if isinstance(table, PackedGroups):
            return look_up(tokens, table, dtype)
        return F.embedding(tokens, plain(table))

    def experts(self, x: Tensor, weights: ExpertWeights, activate: Callable[[Tensor], Tensor]) -> Tensor:
        """Returns the output of a mixture of experts for ``x`` [tokens, hidden], in the same shape. ``activate`` maps
        [rows, 2 * n] to [rows, n]. Raises as ``linear`` does."""
        scores = self.linear(x, weights.router, None)
        return experts_mix(x, weights, scores, activate, fixed=self._deterministic)


def _rows(x: Tensor) -> Tensor:
    """With the numbers of each row next to each other."""
    return x if x.stride(-1) == 1 else x.contiguous()
