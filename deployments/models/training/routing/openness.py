"""Fits the detector of open requests: networks of few hidden units, side by side in one table.

Each network starts from another draw. A request is open when the mean of their log-odds is above a threshold, which is
chosen on requests that nothing was fitted to.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
import torch
from torch.nn import functional

from router.tiers.open_request import BUCKETS, OpenDetector, hashed
from router.tiers.quality_forecast import Features

NETWORKS, UNITS = 3, 8
DROPPED = 0.3  # of the inputs in each step, so that the networks can do without any one of them, as with new words
DROPPED_UNITS = 0.1
WEIGHT_DECAY = 0.1
LEARNING_RATE = 4e-3  # the largest; it rises and falls once (Smith and Topin 2018)
BATCH, EPOCHS = 256, 3
SURE = 8.0  # what log-odds are multiplied by once the threshold is known: a request is a task or it is not
THRESHOLDS = tuple(step / 4 for step in range(-16, 17))  # in log-odds
BYTE = 127

Requests = Mapping[str, Sequence[Features]]  # by kind


@dataclass(frozen=True, slots=True)
class Misrouted:
    """By kind, the share of tasks that are taken for open requests, and of open requests that are taken for tasks."""

    tasks: Mapping[str, float]
    opened: Mapping[str, float]

    @property
    def sum(self) -> float:
        """The mean share of the kinds of tasks and that of the kinds of open requests."""
        return sum(self.tasks.values()) / len(self.tasks) + sum(self.opened.values()) / len(self.opened)


def fit_detector(tier: str, tasks: Sequence[Features], opened: Sequence[Features], seed: int) -> OpenDetector:
    """Returns a detector whose log-odds are those of the fit. The same for the same arguments on one machine."""
    inputs = [_Input.of(each) for each in (*tasks, *opened)]
    outcomes = torch.tensor([0.0] * len(tasks) + [1.0] * len(opened))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # thousands of operations, each shorter than the hand-over to another thread
    try:
        networks = [_trained(inputs, outcomes, torch.Generator().manual_seed(seed + n)) for n in range(NETWORKS)]
    finally:
        torch.set_num_threads(threads)
    return _packed(tier, networks)


def misrouted(detector: OpenDetector, tasks: Requests, opened: Requests, threshold: float = 0.0) -> Misrouted:
    """What ``detector`` mistakes."""
    return _misrouted(_odds(detector, tasks), _odds(detector, opened), threshold)


def least_misrouting(detector: OpenDetector, tasks: Requests, opened: Requests) -> float:
    """Returns the threshold at which the fewest requests are mistaken, every kind counting alike."""
    task_odds, open_odds = _odds(detector, tasks), _odds(detector, opened)
    return min(THRESHOLDS, key=lambda threshold: _misrouted(task_odds, open_odds, threshold).sum)


def decided(detector: OpenDetector, threshold: float) -> OpenDetector:
    """Returns a detector that is nearly certain of its verdict, at ``threshold`` log-odds of ``detector``."""
    weights = tuple(SURE * weight for weight in detector.hidden_weights)
    *units, direct = detector.steps
    return replace(
        detector,
        steps=(*units, SURE * direct),
        hidden_weights=weights,
        bias=SURE * (detector.bias - threshold),
    )


def _odds(detector: OpenDetector, requests: Requests) -> dict[str, list[float]]:
    return {kind: [detector.odds(each.terms, each.signs) for each in part] for kind, part in requests.items()}


def _misrouted(tasks: Mapping[str, list[float]], opened: Mapping[str, list[float]], threshold: float) -> Misrouted:
    return Misrouted(
        {kind: sum(odds > threshold for odds in part) / len(part) for kind, part in tasks.items()},
        {kind: sum(odds <= threshold for odds in part) / len(part) for kind, part in opened.items()},
    )


@dataclass(frozen=True, slots=True)
class _Input:
    """The rows of a request, and by how much each counts."""

    rows: torch.Tensor
    shares: torch.Tensor

    @classmethod
    def of(cls, seen: Features) -> _Input:
        signs = [hashed("# " + sign) % BUCKETS for sign in seen.signs]
        share = 1 / math.sqrt(len(seen.terms) or 1)
        return cls(
            torch.tensor([*sorted(seen.terms), *signs], dtype=torch.int32),
            torch.tensor([share] * len(seen.terms) + [1.0] * len(signs)),
        )


@dataclass(frozen=True, slots=True)
class _Network:
    table: torch.Tensor  # by bucket, to the hidden units and, last, to the odds
    hidden_bias: torch.Tensor
    hidden_weights: torch.Tensor
    bias: torch.Tensor

    @classmethod
    def random(cls, draw: torch.Generator) -> _Network:
        """The weights to start from."""
        table = torch.randn(BUCKETS, UNITS + 1, generator=draw) * 0.1
        table[:, -1] = 0
        return cls(
            table.requires_grad_(),
            torch.zeros(UNITS, requires_grad=True),
            (torch.randn(UNITS, generator=draw) * 0.1).requires_grad_(),
            torch.zeros(1, requires_grad=True),
        )

    def odds(self, chosen: Sequence[_Input], draw: torch.Generator) -> torch.Tensor:
        """Log-odds by request, with a part of all inputs and units left out (dropout, Srivastava et al. 2014)."""
        starts = torch.tensor([0, *accumulate(len(each.rows) for each in chosen[:-1])], dtype=torch.int32)
        shares = torch.cat([each.shares for each in chosen])
        shares = shares * _kept(shares.shape, DROPPED, draw)
        rows = torch.cat([each.rows for each in chosen])
        sums = functional.embedding_bag(rows, self.table, starts, per_sample_weights=shares, mode="sum")
        hidden = torch.relu(sums[:, :UNITS] + self.hidden_bias)
        hidden = hidden * _kept(hidden.shape, DROPPED_UNITS, draw)
        odds: torch.Tensor = hidden @ self.hidden_weights + sums[:, UNITS] + self.bias
        return odds


def _trained(inputs: Sequence[_Input], outcomes: torch.Tensor, draw: torch.Generator) -> _Network:
    network = _Network.random(draw)
    weights = [network.table, network.hidden_bias, network.hidden_weights, network.bias]
    optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)
    steps = EPOCHS * math.ceil(len(inputs) / BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    for chosen in _batches(len(inputs), draw):
        odds = network.odds([inputs[place] for place in chosen.tolist()], draw)
        optimizer.zero_grad()
        functional.binary_cross_entropy_with_logits(odds, outcomes[chosen]).backward()
        optimizer.step()
        schedule.step()
    return network


def _batches(count: int, draw: torch.Generator) -> Iterator[torch.Tensor]:
    for _ in range(EPOCHS):
        yield from torch.randperm(count, generator=draw).split(BATCH)


def _kept(shape: torch.Size, dropped: float, draw: torch.Generator) -> torch.Tensor:
    """0 for what is dropped, and for the rest what makes up for it."""
    return (torch.rand(shape, generator=draw) >= dropped).float() / (1 - dropped)


def _packed(tier: str, networks: Sequence[_Network]) -> OpenDetector:
    """The mean of ``networks`` as one: their units side by side, and the mean of what goes directly to the odds."""
    table = torch.cat(
        [
            *(network.table.detach()[:, :UNITS] for network in networks),
            torch.stack([network.table.detach()[:, UNITS] for network in networks]).mean(0, keepdim=True).T,
        ],
        dim=1,
    ).numpy()
    steps = np.maximum(np.abs(table).max(axis=0), 1e-6) / BYTE
    return OpenDetector(
        tier,
        np.rint(table / steps).astype(np.int8),
        tuple(steps.tolist()),
        tuple(torch.cat([network.hidden_bias.detach() for network in networks]).tolist()),
        tuple((torch.cat([network.hidden_weights.detach() for network in networks]) / len(networks)).tolist()),
        float(torch.stack([network.bias.detach() for network in networks]).mean()),
    )
