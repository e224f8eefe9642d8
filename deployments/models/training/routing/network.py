"""Fits the forecaster: hidden units beside a direct sum, whose inputs are the words and signs of a request.

Whether a tier is right depends on words and signs together, such as the number of digits where "add" is said. A sum
cannot express that; a few hidden units can.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch.nn import functional

from router.tiers.quality_forecast import Features, Forecaster, HiddenUnits, unknown_signs

Key = int | str  # a bucket of words, or a sign

UNITS = 16
DROPPED = 0.3  # of the inputs in each step, so that the network can do without any one of them, as with new words
DROPPED_UNITS = 0.1
WEIGHT_DECAY = 0.1
LEARNING_RATE = 4e-3  # the largest; it rises and falls once (Smith and Topin 2018)
BATCH = 128
EPOCHS = 12
MIN_STEPS = 1500
MIN_OCCURRENCES = 8  # requests with a word or sign before it gets a row; rarer ones are mostly names
MIN_TASKS = 100
MIN_KNOWN = 8  # of some 40,000 tasks


def vocabulary_of(seen: Iterable[Features]) -> frozenset[int]:
    """Returns the words and pairs that occur in at least MIN_KNOWN tasks. Rarer ones count as unknown, so that the
    share of unknown words in a fitted task is like that in a new request."""
    counts = Counter(word for features in seen for word in features.vocabulary | features.pairs)
    return frozenset(word for word, count in counts.items() if count >= MIN_KNOWN)


def fit(
    seen: Sequence[Features],
    right: Sequence[Sequence[bool | None]],
    tiers: Sequence[str],
    seed: int = 0,
    known: frozenset[int] = frozenset(),
) -> Forecaster:
    """Returns a forecaster for ``tiers`` from what was ``seen`` of each request and whether each tier was ``right`` (by
    request, by tier); None where that is not known. ``known`` are the words of the tasks that tiers were trained for.

    The same result for the same arguments on one machine. Raises ValueError for fewer than MIN_TASKS requests.
    """
    if len(seen) < MIN_TASKS:
        raise ValueError(f"{len(seen)} different tasks are too few to fit to; at least {MIN_TASKS} are needed")
    inputs = _Inputs.of([replace(each, signs=(*each.signs, *unknown_signs(each, known))) for each in seen])
    outcomes = torch.tensor([[math.nan if mark is None else float(mark) for mark in row] for row in right])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # thousands of operations, each shorter than the hand-over to another thread
    try:
        weights = _trained(inputs, outcomes, torch.Generator().manual_seed(seed))
    finally:
        torch.set_num_threads(threads)
    rows = [tuple(row) for row in torch.cat([weights.table, weights.direct], 1).tolist()]
    return Forecaster(
        tuple(tiers),
        tuple(weights.bias.tolist()),
        {key: rows[place] for key, place in inputs.places.items() if isinstance(key, str)},
        {key: rows[place] for key, place in inputs.places.items() if isinstance(key, int)},
        known=known,
        hidden=HiddenUnits(
            tuple(weights.hidden_bias.tolist()), tuple(tuple(row) for row in weights.hidden_weights.tolist())
        ),
    )


@dataclass(frozen=True, slots=True)
class _Inputs:
    """By request, the places of its rows and by how much each counts."""

    places: dict[Key, int]
    rows: list[torch.Tensor]
    shares: list[torch.Tensor]

    @classmethod
    def of(cls, seen: Sequence[Features]) -> _Inputs:
        """The inputs of all requests, of those words and signs that are frequent enough."""
        words: Counter[Key] = Counter(word for each in seen for word in each.words)
        signs: Counter[Key] = Counter(sign for each in seen for sign in each.signs)
        keys: list[Key] = [*sorted(words, key=str), *sorted(signs, key=str)]
        places = {key: place for place, key in enumerate(k for k in keys if max(words[k], signs[k]) >= MIN_OCCURRENCES)}
        rows, shares = [], []
        for each in seen:
            share = 1 / math.sqrt(len(each.words) or 1)
            active: dict[Key, float] = {**dict.fromkeys(sorted(each.words), share), **dict.fromkeys(each.signs, 1.0)}
            known = {key: value for key, value in active.items() if key in places}
            rows.append(torch.tensor([places[key] for key in known], dtype=torch.int64))
            shares.append(torch.tensor(list(known.values()), dtype=torch.float32))
        return cls(places, rows, shares)

    def batch(self, chosen: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Rows and shares of some requests, one after the other, and where each begins."""
        rows = [self.rows[place] for place in chosen]
        lengths = torch.tensor([0, *(len(each) for each in rows[:-1])])
        return torch.cat(rows), torch.cat([self.shares[place] for place in chosen]), lengths.cumsum(0)


@dataclass(frozen=True, slots=True)
class _Weights:
    table: torch.Tensor  # by input, to the hidden units
    direct: torch.Tensor  # by input, to the tiers
    hidden_bias: torch.Tensor
    hidden_weights: torch.Tensor
    bias: torch.Tensor

    @classmethod
    def random(cls, inputs: int, tiers: int, draw: torch.Generator) -> _Weights:
        """The weights to start from."""
        return cls(
            (torch.randn(inputs, UNITS, generator=draw) * 0.1).requires_grad_(),
            torch.zeros(inputs, tiers, requires_grad=True),
            torch.zeros(UNITS, requires_grad=True),
            (torch.randn(UNITS, tiers, generator=draw) * 0.1).requires_grad_(),
            torch.zeros(tiers, requires_grad=True),
        )

    def all(self) -> list[torch.Tensor]:
        """All that is trained."""
        return [self.table, self.direct, self.hidden_bias, self.hidden_weights, self.bias]

    def odds(self, rows: torch.Tensor, shares: torch.Tensor, starts: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        """Log-odds by request and tier. ``kept`` multiplies the hidden units."""
        both = torch.cat([self.table, self.direct], 1)
        sums = functional.embedding_bag(rows, both, starts, per_sample_weights=shares, mode="sum")
        hidden = torch.relu(sums[:, :UNITS] + self.hidden_bias) * kept
        odds: torch.Tensor = hidden @ self.hidden_weights + sums[:, UNITS:] + self.bias
        return odds


def _trained(inputs: _Inputs, outcomes: torch.Tensor, draw: torch.Generator) -> _Weights:
    """The weights after training."""
    weights = _Weights.random(len(inputs.places), outcomes.shape[1], draw)
    optimizer = torch.optim.AdamW(weights.all(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    batches = math.ceil(len(outcomes) / BATCH)
    epochs = max(EPOCHS, math.ceil(MIN_STEPS / batches))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=epochs * batches)
    for chosen in _batches(len(outcomes), epochs, draw):
        rows, shares, starts = inputs.batch(chosen.tolist())
        shares = shares * _kept(shares.shape, DROPPED, draw)
        odds = weights.odds(rows, shares, starts, _kept(torch.Size((len(chosen), UNITS)), DROPPED_UNITS, draw))
        optimizer.zero_grad()
        _loss(odds, outcomes[chosen]).backward()
        optimizer.step()
        schedule.step()
    return weights


def _batches(count: int, epochs: int, draw: torch.Generator) -> Iterator[torch.Tensor]:
    for _ in range(epochs):
        yield from torch.randperm(count, generator=draw).split(BATCH)


def _kept(shape: torch.Size, dropped: float, draw: torch.Generator) -> torch.Tensor:
    """0 for what is dropped, and for the rest what makes up for it (dropout, Srivastava et al. 2014)."""
    return (torch.rand(shape, generator=draw) >= dropped).float() / (1 - dropped)


def _loss(odds: torch.Tensor, outcomes: torch.Tensor) -> torch.Tensor:
    """The mean log loss of what is known, in nats, summed over the tiers."""
    known = ~outcomes.isnan()
    losses = functional.binary_cross_entropy_with_logits(odds, outcomes.nan_to_num(0.0), reduction="none")
    return (losses * known).sum() / len(outcomes)
