"""The training loop: AdamW on pairs in batches of like length, for a given time of the processor."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from deployments.models.training.pairs.model import collate, joined
from deployments.models.training.safety.loop import save_checkpoint
from deployments.models.training.safety.model import Classifier

BATCH_TOKENS: Final = 900
POOL: Final = 60  # batches that are sorted by length together
CHECKPOINT_SECONDS: Final = 240
SURE: Final = 0.98
"""The target of a pair that is labelled the same; of a different one it is 1 - SURE, since labels are noisy."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """``minutes`` are of the processor; the run also ends after ``wall_minutes`` of the clock. The learning rate falls
    to zero by whichever comes first, so that a run on a busy machine ends as a whole one."""

    minutes: float = 45
    wall_minutes: float = 240
    learning_rate: float = 1.2e-4
    head_learning_rate: float = 1e-3
    frozen_layers: int = 2
    warmup: float = 0.05
    seed: int = 0
    bfloat16: bool = False  # products; twice as fast where the processor multiplies bfloat16


@dataclass(frozen=True, slots=True)
class Item:
    """Word pieces of both texts."""

    one: list[int]
    other: list[int]
    same: int


class Progress:
    """The share of a run that is done, by the processor's time and by the clock."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._start = time.process_time(), time.monotonic()

    def done(self) -> float:
        worked, passed = time.process_time() - self._start[0], time.monotonic() - self._start[1]
        return max(worked / (self._recipe.minutes * 60), passed / (self._recipe.wall_minutes * 60))


def batches(items: Sequence[Item], rng: random.Random) -> Iterator[list[Item]]:
    """Yields batches without end, of about BATCH_TOKENS tokens and like lengths."""
    while True:
        order = rng.sample(range(len(items)), len(items))
        size = BATCH_TOKENS * POOL // 32
        for begin in range(0, len(order), size):
            chosen = sorted((items[place] for place in order[begin : begin + size]), key=length)
            groups: list[list[Item]] = [[]]
            for item in chosen:
                if length(item) * (len(groups[-1]) + 1) > BATCH_TOKENS:
                    groups.append([])
                groups[-1].append(item)
            rng.shuffle(groups)
            yield from groups


def length(item: Item) -> int:
    return len(item.one) + len(item.other) + 3


def train(model: Classifier, items: Sequence[Item], recipe: Recipe, work: Path) -> None:
    """Trains ``model``. Writes checkpoints to ``work``."""
    torch.manual_seed(recipe.seed)
    rng = random.Random(f"batches {recipe.seed}")
    model.embeddings.requires_grad_(False)
    for layer in list(model.encoder.layer)[: recipe.frozen_layers]:
        layer.requires_grad_(False)
    body = [value for name, value in model.named_parameters() if value.requires_grad and not name.startswith("head")]
    groups = [
        {"params": body, "lr": recipe.learning_rate},
        {"params": list(model.head.parameters()), "lr": recipe.head_learning_rate},
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.01)
    peaks = [group["lr"] for group in optimizer.param_groups]
    progress, saved, seen, average = Progress(recipe), time.monotonic(), 0, 0.0
    model.train()
    bar = tqdm(total=1000, unit="‰", mininterval=20)
    for batch in batches(items, rng):
        done = progress.done()
        if done >= 1:
            break
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * rate(done, recipe.warmup)
        loss = loss_of(model, batch, rng, recipe.bfloat16)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(body, 1.0)
        optimizer.step()
        seen += len(batch)
        average = 0.99 * average + 0.01 * loss.item() if average else loss.item()
        bar.set_postfix(loss=f"{average:.3f}", pairs=seen, refresh=False)
        bar.update(round(done * 1000) - bar.n)
        if time.monotonic() - saved > CHECKPOINT_SECONDS:
            save_checkpoint(model, work)
            saved = time.monotonic()
    save_checkpoint(model, work)
    bar.close()


def loss_of(model: Classifier, batch: Sequence[Item], rng: random.Random, bfloat16: bool) -> Tensor:
    """Binary cross-entropy of a batch, the sides of each pair in random order."""
    sides = [(item.one, item.other) if rng.random() < 0.5 else (item.other, item.one) for item in batch]
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        logits = model(*collate([joined(one, other) for one, other in sides]))
    target = torch.tensor([[SURE if item.same else 1 - SURE] for item in batch])
    return functional.binary_cross_entropy_with_logits(logits.float(), target)


def rate(done: float, warmup: float) -> float:
    """The share of the peak learning rate: a linear rise, then a line to zero. ``done`` goes from 0 to 1."""
    return (done + 1e-3) / warmup if done < warmup else (1 - done) / (1 - warmup)
