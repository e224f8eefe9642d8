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

_FIRST_LOOK = 256
"""Tokens. Most nuclei and common values of top_k are smaller, and sorting so many costs a tenth of sorting all."""


@dataclass(frozen=True, slots=True)
class Draw:
    """How one row is to be chosen: settings, and the seed and position that its random numbers come from."""

    params: SamplingParams
    seed: int
    position: int  # of the token to be chosen, counted from the start of the prompt


def sample(logits: Tensor, draws: Sequence[Draw]) -> list[int | None]:
    """Token ids for the rows of ``logits`` [rows, vocab] float32, one draw for each; None where the largest is no
    finite number, so that there is nothing to choose from."""
    largest, chosen = logits.max(-1)
    rows = [row for row, draw in enumerate(draws) if draw.params.temperature > 0]
    if rows:
        index = torch.tensor(rows, device=logits.device)
        chosen[index] = _sample_random(logits[index], [draws[row] for row in rows])
    sound = largest.isfinite().tolist()
    return [token if fine else None for token, fine in zip(chosen.tolist(), sound, strict=True)]


def _sample_random(logits: Tensor, draws: list[Draw]) -> Tensor:
    """One draw from the softmax of each row, after temperature, top-k and top-p."""
    temperatures = [max(draw.params.temperature, 1e-5) for draw in draws]
    logits = logits / torch.tensor(temperatures, device=logits.device).unsqueeze(1)
    narrow = [draw.params.top_k > 0 or draw.params.top_p < 1 for draw in draws]
    if not any(narrow):
        return _choose_from_all(logits, draws)
    chosen = torch.empty(len(draws), dtype=torch.int64, device=logits.device)
    for kind, choose in ((False, _choose_from_all), (True, _choose_from_likeliest)):
        rows = [row for row, is_narrow in enumerate(narrow) if is_narrow is kind]
        if rows:
            index = torch.tensor(rows, device=logits.device)
            chosen[index] = choose(logits[index], [draws[row] for row in rows])
    return chosen


def _choose_from_all(logits: Tensor, draws: list[Draw]) -> Tensor:
    return _race(logits, torch.arange(logits.shape[1], device=logits.device).unsqueeze(0), draws)


def _choose_from_likeliest(logits: Tensor, draws: list[Draw], width: int = _FIRST_LOOK) -> Tensor:
    """Sorts only the ``width`` likeliest tokens of each row; rows that need more are looked at again, in full."""
    width = min(width, logits.shape[1])
    kept, tokens, enough = _narrow(logits, [draw.params for draw in draws], width)
    chosen = _race(kept, tokens, draws)
    wider = [row for row, is_enough in enumerate(enough.tolist()) if not is_enough]
    if wider and width < logits.shape[1]:
        index = torch.tensor(wider, device=logits.device)
        chosen[index] = _choose_from_likeliest(logits[index], [draws[row] for row in wider], logits.shape[1])
    return chosen


def _race(logits: Tensor, tokens: Tensor, draws: list[Draw]) -> Tensor:
    """Gumbel-max: the argmax of logits plus Gumbel noise is a draw from their softmax. ``tokens`` are the ids of the
    columns of ``logits``: [rows, n] or, the same for all rows, [1, n]."""
    noise = gumbel([draw.seed for draw in draws], [draw.position for draw in draws], tokens)
    winner = noise.add_(logits).argmax(-1, keepdim=True)
    return tokens.expand(len(draws), -1).gather(1, winner).squeeze(1)


def _narrow(logits: Tensor, params: list[SamplingParams], width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Top-k (Fan et al. 2018), then top-p (Holtzman et al. 2020) of what is left.

    Gives the ``width`` largest logits of each row with -inf for what is cut, their token ids, both [rows, width], and
    whether they hold all that is not cut [rows]. Top-p keeps the smallest set of the likeliest tokens that reaches
    ``top_p``, so at least one.
    """
    vocab = logits.shape[1]
    top_k = torch.tensor([[p.top_k if 0 < p.top_k < vocab else vocab] for p in params], device=logits.device)
    top_p = torch.tensor([[p.top_p] for p in params], device=logits.device)
    ordered, tokens = logits.topk(width)
    ordered.masked_fill_(torch.arange(width, device=logits.device) >= top_k, -torch.inf)
    total = torch.where(top_k <= width, ordered.logsumexp(-1, keepdim=True), logits.logsumexp(-1, keepdim=True))
    reached = (ordered - total).exp_().cumsum(-1)
    # A row without top_p keeps all: rounding may bring its sum to 1 before the end.
    cut = (reached[:, :-1] >= top_p) & (top_p < 1)
    ordered[:, 1:].masked_fill_(cut, -torch.inf)
    # With a larger top_k, what top_p is a share of is not known yet.
    enough = (top_k <= width) | ((top_k == vocab) & (reached[:, -1:] >= top_p) & (top_p < 1))
    return ordered, tokens, enough.squeeze(1)
