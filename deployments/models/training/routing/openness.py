"""Adds the tier that open requests go to: one logistic regression, of whether a request is open.

A sum of words and signs tells open requests from tasks better than hidden units do that are trained with it: it keeps
what rare words say.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch.nn import functional

from deployments.models.training.routing.network import MIN_OCCURRENCES, Key
from router.tiers.quality_forecast import Features, Forecaster, HiddenUnits, unknown_signs

PENALTY = 1e-5  # of squared weights, beside the mean log loss
STEPS = 300


def with_open_tier(forecaster: Forecaster, tier: str, seen: Sequence[Features], opened: Sequence[bool]) -> Forecaster:
    """Returns ``forecaster`` with ``tier`` as its last, whose chance is that a request is open. ``seen`` and ``opened``
    say of each request what it is like and whether it is. The same result for the same arguments on one machine."""
    seen = [replace(each, signs=(*each.signs, *unknown_signs(each, forecaster.known))) for each in seen]
    counts: Counter[Key] = Counter()
    for each in seen:
        counts.update(each.words)
        counts.update(each.signs)
    frequent = sorted((key for key, count in counts.items() if count >= MIN_OCCURRENCES), key=str)
    columns = {key: column for column, key in enumerate(frequent)}
    weights, bias = _regressed(_matrix(seen, columns), torch.tensor(opened, dtype=torch.float64))
    added = {key: float(weights[column]) for key, column in columns.items()}
    width = len(forecaster.hidden.bias) + len(forecaster.tiers)
    none = (0.0,) * width
    signs = {key for key in added if isinstance(key, str)} | set(forecaster.signs)
    words = {key for key in added if isinstance(key, int)} | set(forecaster.words)
    return replace(
        forecaster,
        tiers=(*forecaster.tiers, tier),
        bias=(*forecaster.bias, bias),
        signs={key: (*forecaster.signs.get(key, none), added.get(key, 0.0)) for key in sorted(signs)},
        words={key: (*forecaster.words.get(key, none), added.get(key, 0.0)) for key in sorted(words)},
        hidden=HiddenUnits(forecaster.hidden.bias, tuple((*row, 0.0) for row in forecaster.hidden.weights)),
    )


def _matrix(seen: Sequence[Features], columns: dict[Key, int]) -> torch.Tensor:
    """Requests by words (each 1 / sqrt of their number, as the forecaster has it) and signs."""
    rows: list[int] = []
    places: list[int] = []
    values: list[float] = []
    for row, each in enumerate(seen):
        share = 1 / math.sqrt(len(each.words) or 1)
        active: dict[Key, float] = {**dict.fromkeys(each.words, share), **dict.fromkeys(each.signs, 1.0)}
        for key in active.keys() & columns.keys():
            rows.append(row)
            places.append(columns[key])
            values.append(active[key])
    shape = (len(seen), len(columns))
    return torch.sparse_coo_tensor(
        torch.tensor([rows, places]), torch.tensor(values, dtype=torch.float64), shape, check_invariants=True
    ).coalesce()


def _regressed(inputs: torch.Tensor, outcomes: torch.Tensor) -> tuple[torch.Tensor, float]:
    """The weights and the bias of the logistic regression."""
    weights = torch.zeros(inputs.shape[1], 1, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights, bias], max_iter=STEPS, tolerance_grad=1e-5, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        odds = (torch.sparse.mm(inputs, weights) + bias).squeeze(1)
        loss = functional.binary_cross_entropy_with_logits(odds, outcomes) + PENALTY * weights.square().sum()
        loss.backward()
        return loss

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # hundreds of short operations
    try:
        optimizer.step(closure)
    finally:
        torch.set_num_threads(threads)
    return weights.detach().squeeze(1), bias.item()
