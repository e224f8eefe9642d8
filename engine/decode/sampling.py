"""The next token of every row of a batch, each with its own settings.

A row's choice is a function of its own logits, settings, seed and position: no operation here mixes rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.api import SamplingParams
from engine.decode.random import gumbel


@dataclass(frozen=True, slots=True)
class Draw:
    """How one row is to be chosen: settings, and the seed and position that its random numbers come from."""

    params: SamplingParams
    seed: int
    position: int  # of the token to be chosen, counted from the start of the prompt


def sample(logits: Tensor, draws: Sequence[Draw]) -> list[int]:
    """Token ids for the rows of ``logits`` [rows, vocab] float32, one draw for each."""
    chosen = logits.argmax(-1)
    rows = [row for row, draw in enumerate(draws) if draw.params.temperature > 0]
    if rows:
        index = torch.tensor(rows, device=logits.device)
        chosen[index] = _sample_random(logits[index], [draws[row] for row in rows])
    result: list[int] = chosen.tolist()
    return result


def _sample_random(logits: Tensor, draws: list[Draw]) -> Tensor:
    """Gumbel-max: the argmax of log-probabilities plus Gumbel noise is a draw from the softmax."""
    temperatures = [max(draw.params.temperature, 1e-5) for draw in draws]
    logits = logits / torch.tensor(temperatures, device=logits.device).unsqueeze(1)
    narrowed = [row for row, draw in enumerate(draws) if draw.params.top_k > 0 or draw.params.top_p < 1]
    if narrowed:
        index = torch.tensor(narrowed, device=logits.device)
        logits[index] = _narrow(logits[index], [draws[row].params for row in narrowed])
    noise = gumbel([d.seed for d in draws], [d.position for d in draws], logits.shape[1], logits.device)
    return noise.add_(logits).argmax(-1)


def _narrow(logits: Tensor, params: list[SamplingParams]) -> Tensor:
    """Top-k (Fan et al. 2018), then top-p (Holtzman et al. 2020) of what is left; what is cut becomes -inf.

    Top-p keeps the smallest set of the likeliest tokens that reaches ``top_p``, so at least one.
    """
    vocab = logits.shape[1]
    top_k = torch.tensor([p.top_k if 0 < p.top_k < vocab else vocab for p in params], device=logits.device)
    top_p = torch.tensor([p.top_p for p in params], device=logits.device)
    ordered, order = logits.sort(dim=-1, descending=True, stable=True)
    ranks = torch.arange(vocab, device=logits.device)
    ordered.masked_fill_(ranks >= top_k.unsqueeze(1), -torch.inf)
    probabilities = ordered.softmax(-1)
    before = probabilities.cumsum(-1) - probabilities
    # A row without top_p keeps all: rounding may bring its cumulated sum to 1 before the end.
    ordered.masked_fill_((before >= top_p.unsqueeze(1)) & (top_p < 1).unsqueeze(1), -torch.inf)
    ordered[:, 0] = logits.gather(1, order[:, :1]).squeeze(1)
    return ordered.scatter(1, order, ordered)
