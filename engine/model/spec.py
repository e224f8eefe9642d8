"""``ModelSpec``: the properties of a model that the decoder needs: its shape, and the differences of its family.

model/configuration.py makes it from config.json; model/family.py declares the differences of the families.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SUPPORTED_ROPE_TYPES = ("default", "linear", "dynamic", "llama3", "yarn", "longrope")

Activation = Literal["silu", "gelu", "gelu_tanh"]
NormKind = Literal["rms", "layer"]
HeadNorm = Literal["none", "head", "projection"]


class UnsupportedModelError(ValueError):
    """The engine cannot run this model; the message lists what it supports."""


@dataclass(frozen=True, slots=True)
class RopeSpec:
    """Rotary position embedding (Su et al. 2021). Each member below ``theta`` applies to the scaling types named beside
    it."""

    type: str = "default"
    theta: float = 10_000.0
    rotated: float = 1.0  # fraction of each head that is rotated; the rest knows no positions
    factor: float = 1.0  # all scaled types: by how much the context is stretched
    original_context: int = 8_192  # tokens before scaling
    low_freq_factor: float = 1.0  # llama3
    high_freq_factor: float = 4.0  # llama3
    beta_fast: float = 32.0  # yarn: rotations over the original context above which a frequency is kept
    beta_slow: float = 1.0  # yarn: and below which it is divided by ``factor``
    truncate: bool = True  # yarn: whether those bounds are rounded to whole dimensions
    magnitude: float = 1.0  # yarn, longrope: multiplies cosines and sines
    short_factors: tuple[float, ...] = ()  # longrope: one divisor per frequency, for contexts up to the original
    long_factors: tuple[float, ...] = ()  # longrope: and for longer ones


@dataclass(frozen=True, slots=True)
class NormSpec:
    """The norms of a model: root mean square (Zhang and Sennrich 2019) or layer norm (Ba et al. 2016)."""

    kind: NormKind = "rms"
    eps: float = 1e-6
    offset: float = 0.0  # added to the stored weight: Gemma's checkpoints hold w - 1
    wide: bool = False  # multiply by the weight in float32 and round once, after it, rather than before


@dataclass(frozen=True, slots=True)
class AttentionKind:
    """The properties that all layers of one kind share, so that they can share one attention plan per step."""

    window: int | None  # most tokens a query sees, itself included; None: all up to itself
    rope: RopeSpec | None  # None: positions are learned and added to the embedding


@dataclass(frozen=True, slots=True)
class ExpertSpec:
    """A mixture of experts in place of the MLP (Shazeer et al. 2017)."""

    count: int
    per_token: int
    intermediate_size: int
    normalised: bool  # whether the weights of a token's experts add up to one


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """One layer: the index of its attention kind in ``ModelSpec.kinds``, and its own properties."""

    kind: int
    scale: float  # of the scores, before their softmax
    experts: ExpertSpec | None = None


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """The shape of a decoder-only transformer. Sizes are in elements, ``context_length`` is in tokens."""

    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    context_length: int
    kinds: tuple[AttentionKind, ...]
    layers: tuple[LayerSpec, ...]
    norm: NormSpec
    head_norm: HeadNorm  # RMS norm of queries and keys before the rotation: over each head, or all heads together
    activation: Activation
    gated: bool  # whether the MLP multiplies two projections, one of them activated (Shazeer 2020)
    tied_embeddings: bool
    qkv_bias: bool
    output_bias: bool
    mlp_bias: bool
    learned_positions: bool
    embedding_scale: float | None  # multiplies the embedding of each token
    score_cap: float | None  # c: attention scores s become c * tanh(s / c), before the mask (Gemma 2)
    logit_cap: float | None  # the same for the logits

    @property
    def num_layers(self) -> int:
        """The number of layers."""
        return len(self.layers)
