"""``TritonKernels``: the Triton kernels behind the common interface."""

from __future__ import annotations

from functools import partial

import torch
import triton
from torch import Tensor

from engine.kernels.triton.activations import gated
from engine.kernels.triton.attention import paged_attention
from engine.kernels.triton.attention_metadata import PagedPlan
from engine.kernels.triton.heads import place_heads
from engine.kernels.triton.linear import Products
from engine.kernels.triton.norms import add_rms_norm, rms_norm
from engine.kv.format import KVPages
from engine.model.spec import Activation
from engine.model.weights import ExpertWeights, Matrix


class TritonKernels:
    """Implements ``Kernels`` for one engine. ``deterministic``: a row's result does not depend, bit for bit, on the
    rest of the step."""

    def __init__(self, device: torch.device, deterministic: bool) -> None:
        """Raises ValueError for a CPU outside of Triton's interpreter."""
        if device.type != "cuda" and not triton.knobs.runtime.interpret:
            raise ValueError("kernels: triton needs device cuda; TRITON_INTERPRET=1 runs it on a CPU, for tests")
        self._products = Products(device, deterministic)
        self._deterministic = deterministic
        self._multiprocessors = _multiprocessors(device)

    def linear(self, x: Tensor, weight: Matrix, bias: Tensor | None) -> Tensor:
        return self._products.linear(x, weight, bias)

    def embedding(self, tokens: Tensor, table: Matrix, dtype: torch.dtype) -> Tensor:
        return self._products.embedding(tokens, table, dtype)

    def experts(self, x: Tensor, weights: ExpertWeights, activation: Activation) -> Tensor:
        return self._products.experts(x, weights, partial(self.gated, activation=activation))

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        return rms_norm(x, weight, eps)

    def add_rms_norm(self, stream: Tensor, update: Tensor, weight: Tensor, eps: float) -> Tensor:
        return add_rms_norm(stream, update, weight, eps)

    def place_heads(self, qkv: Tensor, norm: Tensor | None, eps: float, cache: KVPages, plan: PagedPlan) -> None:
        place_heads(qkv, norm, eps, cache, plan)

    def gated(self, gate_up: Tensor, activation: Activation) -> Tensor:
        return gated(gate_up, activation)

    def attention(
        self, query: Tensor, cache: KVPages, plan: PagedPlan, scale: float, score_cap: float | None
    ) -> Tensor:
        return paged_attention(
            query,
            cache,
            plan,
            scale,
            score_cap,
            deterministic=self._deterministic,
            multiprocessors=self._multiprocessors,
        )


def _multiprocessors(device: torch.device) -> int:
    """Returns the number of multiprocessors of the GPU ``device``; 1 for another device."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1
