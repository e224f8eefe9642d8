"""Tables of cosines and sines for rotary position embeddings."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from engine.model.spec import RopeSpec


def rope_tables(spec: RopeSpec, head_dim: int, length: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines, each [length, head_dim] float32.

    The sines of the first half are negative, so that the rotation of Su et al. 2021, in the half-split layout of
    Hugging Face checkpoints, is ``x * cos + roll(x, head_dim / 2) * sin``.
    """
    angles = torch.outer(torch.arange(length, dtype=torch.float32), inverse_frequencies(spec, head_dim))
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)


def inverse_frequencies(spec: RopeSpec, head_dim: int) -> Tensor:
    """Radians per position, [head_dim / 2] float32, scaled as the spec says."""
    plain = 1.0 / spec.theta ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    if spec.type == "linear":
        return plain / spec.factor
    if spec.type == "llama3":
        return _llama3(spec, plain)
    return plain


def _llama3(spec: RopeSpec, plain: Tensor) -> Tensor:
    """Llama 3.1: long wavelengths are stretched by ``factor``, short ones kept, those between are interpolated."""
    wavelength = 2 * math.pi / plain
    longest = spec.original_context / spec.low_freq_factor
    shortest = spec.original_context / spec.high_freq_factor
    smooth = (spec.original_context / wavelength - spec.low_freq_factor) / (
        spec.high_freq_factor - spec.low_freq_factor
    )
    between = (1 - smooth) * plain / spec.factor + smooth * plain
    scaled = torch.where(wavelength > longest, plain / spec.factor, plain)
    return torch.where((wavelength <= longest) & (wavelength >= shortest), between, scaled)
