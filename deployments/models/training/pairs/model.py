"""The pair model in torch, and its input: ``[CLS] a [SEP] b [SEP]``, where b has token type 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor

from deployments.models.training.safety.model import Classifier
from deployments.models.training.safety.windows import CLS, SEP

MAX_TOKENS: Final = 96
"""Of a pair, special tokens included: the longer text is cut first, at its end."""


class Input(NamedTuple):
    """Word pieces of a pair. The first ``first`` tokens have type 0."""

    tokens: list[int]
    first: int


def pair_model() -> Classifier:
    """Returns an untrained model with one logit: above 0 where the texts ask for the same."""
    return Classifier(labels=1, dropout=0.0)


def joined(one: Sequence[int], other: Sequence[int], max_tokens: int = MAX_TOKENS) -> Input:
    """Returns the input of a pair of texts in word pieces."""
    room = max_tokens - 3
    half = max(room // 2, room - len(other))
    one = one[:half]
    other = other[: room - len(one)]
    return Input([CLS, *one, SEP, *other, SEP], len(one) + 2)


def collate(inputs: Sequence[Input]) -> tuple[Tensor, Tensor, Tensor]:
    """Pads to the longest. Returns tokens, mask and types, each [batch, length], as ``Classifier`` takes them."""
    longest = max(len(each.tokens) for each in inputs)
    tokens = torch.tensor([[*each.tokens, *[0] * (longest - len(each.tokens))] for each in inputs])
    places = torch.arange(longest)[None, :]
    mask = places < torch.tensor([len(each.tokens) for each in inputs])[:, None]
    types = (places >= torch.tensor([each.first for each in inputs])[:, None]) & mask
    return tokens, mask, types.long()
