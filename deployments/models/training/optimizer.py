"""Muon (Jordan et al., 2024): momentum whose matrix is made orthogonal by a Newton-Schulz iteration.

torch has a Muon of its own; it takes one matrix at a time and always computes in bfloat16, which a CPU without bfloat16
instructions does ten times slower than float32. This one takes all matrices of a shape together, and is told the dtype.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Executor
from functools import partial

import torch
from torch import nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # Jordan's quintic: steep at zero, and good enough after four rounds
ROUNDS = 4
MATCH_ADAMW = 0.2  # update RMS as AdamW's, so that both share a learning rate (Liu et al., 2025, "Muon is scalable")


def orthogonalised(matrices: torch.Tensor) -> torch.Tensor:
    """Nearly the orthogonal factor of each of ``matrices`` [count, rows, columns]; singular values come out near 1."""
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(ROUNDS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: torch.Tensor = x.mT if tall else x
    return result


class Muon(torch.optim.Optimizer):
    """For the weight matrices of the layers (2-D). Decoupled weight decay; Nesterov momentum. The matrices are made
    orthogonal in ``dtype``."""

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        pool: Executor,
        *,
        dtype: torch.dtype = torch.float32,
        momentum: float = 0.95,
        weight_decay: float = 0.1,
    ) -> None:
        super().__init__(list(matrices), {"lr": 0.0, "momentum": momentum, "weight_decay": weight_decay})
        self._pool = pool
        self._dtype = dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every matrix that has a gradient."""
        for group in self.param_groups:
            shapes: dict[torch.Size, list[nn.Parameter]] = {}
            for matrix in group["params"]:
                if matrix.grad is not None:
                    shapes.setdefault(matrix.shape, []).append(matrix)
            largest_first = sorted(shapes.values(), key=lambda alike: -len(alike) * alike[0].numel())
            list(self._pool.map(partial(self._update, group), largest_first))

    @torch.no_grad()  # whether gradients are recorded is a matter of each thread
    def _update(self, group: dict[str, float], matrices: list[nn.Parameter]) -> None:
        steps = []
        for matrix in matrices:
            assert matrix.grad is not None
            average = self.state[matrix].setdefault("momentum", torch.zeros_like(matrix))
            average.lerp_(matrix.grad, 1 - group["momentum"])
            steps.append(matrix.grad.lerp(average, group["momentum"]))
        scale = MATCH_ADAMW * max(matrices[0].shape) ** 0.5
        for matrix, step in zip(matrices, orthogonalised(torch.stack(steps).to(self._dtype)), strict=True):
            matrix.mul_(1 - group["lr"] * group["weight_decay"])
            matrix.add_(step, alpha=-group["lr"] * scale)
