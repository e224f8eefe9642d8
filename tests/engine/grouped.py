"""Matrices whose groups have a scale and a minimum: made from weights, and any."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from engine.model.weights import LayerWeights, MLPWeights, ModelWeights, plain
from engine.quant.format import GROUP
from engine.quant.grouped import GroupedMatrix

Bits = Literal[4, 8]
NAMES = ("qkv", "output", "gate_up", "down", "head")


def grouped_matrix(weight: Tensor, bits: Bits) -> GroupedMatrix:
    """``weight`` [outputs, inputs] rounded to the nearest; the least of a group becomes its number 0."""
    groups = weight.float().unflatten(-1, (-1, GROUP))
    minimums = groups.amin(-1).half()
    scales = ((groups.amax(-1) - minimums.float()) / (2**bits - 1)).half()
    numbers = ((groups - minimums.float().unsqueeze(-1)) / scales.float().unsqueeze(-1)).nan_to_num(nan=0.0)
    return GroupedMatrix(bits, numbers.round().clamp(0, 2**bits - 1).byte().flatten(1), scales, minimums)


def grouped_model(weights: ModelWeights, bits: Mapping[str, Bits]) -> ModelWeights:
    """A model with all matrices grouped, in as many bits as ``bits`` says of each of NAMES."""

    def of(name: str, weight: Tensor) -> GroupedMatrix:
        return grouped_matrix(weight, bits[name])

    def layer(whole: LayerWeights) -> LayerWeights:
        assert isinstance(whole.mlp, MLPWeights)
        gate_up, down = of("gate_up", plain(whole.mlp.gate_up)), of("down", plain(whole.mlp.down))
        mlp = replace(whole.mlp, gate_up=gate_up, down=down)
        return replace(whole, qkv=of("qkv", plain(whole.qkv)), output=of("output", plain(whole.output)), mlp=mlp)

    tied = weights.head is weights.embedding
    embedding = weights.embedding[:0] if tied else weights.embedding
    head = of("head", plain(weights.head))
    return replace(weights, embedding=embedding, layers=tuple(map(layer, weights.layers)), head=head)


def random_matrix(outputs: int, inputs: int, bits: Bits) -> GroupedMatrix:
    """Any numbers, with any finite scales and minimums."""
    generator = torch.Generator().manual_seed(outputs)
    numbers = torch.randint(0, 2**bits, (outputs, inputs), generator=generator, dtype=torch.uint8)
    halves = torch.randint(-(2**15), 2**15, (2, outputs, inputs // GROUP), generator=generator, dtype=torch.int16)
    factors = halves.view(torch.float16).nan_to_num(nan=0.5, posinf=-0.5, neginf=0.25)
    return GroupedMatrix(bits, numbers, factors[0], factors[1])
