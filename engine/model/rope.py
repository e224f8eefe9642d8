"""Tables of cosines and sines for rotary position embeddings, with or without scaling, for whole heads or a part of
each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.model.spec import RopeSpec


def rope_tables(spec: RopeSpec, head_dim: int, length: int) -> tuple[Tensor, Tensor]:
    """Returns cosines and sines for the positions 0 to ``length`` - 1, each [length, head_dim] float32.

    The sines of the first half are negative, so that the rotation of Su et al. 2021, in the half-split layout of
    Hugging Face checkpoints, is ``x * cos + roll(x, head_dim / 2) * sin``.

    The frequencies of ``dynamic`` and ``longrope`` depend on ``length``, the maximum context, and not on the length of
    a sequence: cached keys cannot be rotated again when a sequence grows, and sequences can share keys only if they are
    rotated in the same way.
    """
    frequencies = inverse_frequencies(spec, head_dim, length)
    angles = torch.outer(torch.arange(length, dtype=torch.float32), frequencies)
    scale = torch.where(frequencies > 0, spec.magnitude, 1.0)  # what is not rotated is not scaled either
    cos, sin = angles.cos() * scale, angles.sin() * scale
    return torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)


def inverse_frequencies(spec: RopeSpec, head_dim: int, length: int) -> Tensor:
    """Returns the rotation frequencies in radians per position, [head_dim / 2] float32: those of the rotated part, then
    zeros for the rest. Those of ``dynamic`` and ``longrope`` depend on ``length``, the maximum context in tokens.

    They are rounded as in transformers: at position 100,000 the last bit of a frequency is a hundredth of a radian.
    """
    rotated = rotated_size(spec, head_dim)
    return F.pad(_SCALED[spec.type](spec, rotated, length), (0, (head_dim - rotated) // 2))


def rotated_size(spec: RopeSpec, head_dim: int) -> int:
    """Returns the number of elements of a head that are rotated."""
    return int(head_dim * spec.rotated)


def head_order(spec: RopeSpec | None, head_dim: int) -> Tensor | None:
    """Returns the order of a head's elements, as indexes into the checkpoint's head, in which the rotation pairs
    elements half a head apart; None: the checkpoint's order.

    In a checkpoint whose heads are rotated in part, elements are paired half of that part apart. Reordering queries and
    keys in the same way does not change their products, so the rows of their matrices are reordered once, on loading.
    """
    if spec is None or (rotated := rotated_size(spec, head_dim)) == head_dim:
        return None
    first, second = torch.arange(rotated).chunk(2)
    still, too = torch.arange(rotated, head_dim).chunk(2)
    return torch.cat((first, still, second, too))


def _plain(spec: RopeSpec, size: int, length: int) -> Tensor:
    return 1.0 / _wavelengths(spec.theta, size)


def _wavelengths(theta: float, size: int) -> Tensor:
    """Positions per radian, [size / 2] float32."""
    powers: Tensor = theta ** (torch.arange(0, size, 2, dtype=torch.float32) / size)
    return powers


def _linear(spec: RopeSpec, size: int, length: int) -> Tensor:
    """Position interpolation (Chen et al. 2023)."""
    return _plain(spec, size, length) / spec.factor


def _dynamic(spec: RopeSpec, size: int, length: int) -> Tensor:
    """Dynamic NTK (Peng et al. 2023, section 3.1): a larger base for contexts longer than the model's own."""
    stretch = spec.factor * max(length, spec.original_context) / spec.original_context - (spec.factor - 1)
    return 1.0 / _wavelengths(spec.theta * stretch ** (size / (size - 2)), size)


def _llama3(spec: RopeSpec, size: int, length: int) -> Tensor:
    """Llama 3.1: long wavelengths are stretched by ``factor``, short ones kept, those between are interpolated."""
    plain = _plain(spec, size, length)
    wavelength = 2 * math.pi / plain
    longest = spec.original_context / spec.low_freq_factor
    shortest = spec.original_context / spec.high_freq_factor
    smooth = (spec.original_context / wavelength - spec.low_freq_factor) / (
        spec.high_freq_factor - spec.low_freq_factor
    )
    between = (1 - smooth) * plain / spec.factor + smooth * plain
    scaled = torch.where(wavelength > longest, plain / spec.factor, plain)
    return torch.where((wavelength <= longest) & (wavelength >= shortest), between, scaled)


def _yarn(spec: RopeSpec, size: int, length: int) -> Tensor:
    """YaRN (Peng et al. 2023): as llama3, but the ramp is linear in the dimension rather than in the wavelength."""

    def dimension(rotations: float) -> float:
        """Where a frequency turns so many times over the original context."""
        return size * math.log(spec.original_context / (rotations * 2 * math.pi)) / (2 * math.log(spec.theta))

    low, high = dimension(spec.beta_fast), dimension(spec.beta_slow)
    if spec.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, size - 1)
    if low == high:
        high += 0.001  # a step instead of a ramp
    ramp = ((torch.arange(size // 2, dtype=torch.float32) - low) / (high - low)).clamp(0, 1)
    waves = _wavelengths(spec.theta, size)
    return 1.0 / (spec.factor * waves) * ramp + 1.0 / waves * (1 - ramp)


def _longrope(spec: RopeSpec, size: int, length: int) -> Tensor:
    """LongRoPE (Ding et al. 2024): a divisor for each frequency, found by search, of which there are two sets."""
    factors = spec.long_factors if length > spec.original_context else spec.short_factors
    return 1.0 / (torch.tensor(factors, dtype=torch.float32) * _wavelengths(spec.theta, size))


_SCALED: Mapping[str, Callable[[RopeSpec, int, int], Tensor]] = {
    "default": _plain,
    "linear": _linear,
    "dynamic": _dynamic,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
}
"""Frequencies of each type, [size / 2] float32, for ``size`` rotated elements and contexts up to ``length``."""
