"""The training loop: AdamW on windows in batches of like length, for a given time."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from deployments.models.training.safety.example import Example
from deployments.models.training.safety.labels import CATEGORIES, HARMFUL, INJECTION, LABELS
from deployments.models.training.safety.model import Classifier, collate
from deployments.models.training.safety.windows import CLS, SEP, WINDOW

BATCH_TOKENS: Final = 512
POOL: Final = 40  # batches that are sorted by length together
CHECKPOINT_SECONDS: Final = 240
LABEL_WEIGHT: Final = torch.tensor([{HARMFUL: 3.0, INJECTION: 3.0}.get(label, 1.0) for label in LABELS])


@dataclass(frozen=True, slots=True)
class Recipe:
    """``minutes`` are of the processor, so that other work beside the training does not shorten it."""

    minutes: float = 45
    learning_rate: float = 1.2e-4
    head_learning_rate: float = 1e-3
    frozen_layers: int = 2
    warmup: float = 0.04
    seed: int = 0
    bfloat16: bool = False  # products; twice as fast where the processor multiplies bfloat16


@dataclass(frozen=True, slots=True)
class Item:
    pieces: list[int]
    target: list[float]
    weight: list[float]


def item(example: Example, pieces: list[int]) -> Item:
    """Returns the targets of all labels; the weight of an unknown one is 0."""
    target = [example.known.get(label, 0.0) for label in LABELS]
    return Item(pieces, target, [float(label in example.known) for label in LABELS])


def crop(pieces: list[int], harmful: bool, rng: random.Random) -> list[int]:
    """Returns one window of a text, as long as the service cuts them. Of a harmful text it is the first or the last,
    where the harm mostly stands; a text that fits a window stays whole, so that no label is of what was cut off."""
    last = max(0, len(pieces) - WINDOW)
    start = rng.choice((0, last)) if harmful else rng.randint(0, last)
    return [CLS, *pieces[start : start + WINDOW], SEP]


def batches(items: Sequence[Item], rng: random.Random) -> Iterator[list[tuple[list[int], Item]]]:
    """Yields batches without end, of about BATCH_TOKENS tokens and like lengths."""
    while True:
        order = rng.sample(range(len(items)), len(items))
        size = BATCH_TOKENS * POOL // 32
        for begin in range(0, len(order), size):
            chosen = [items[place] for place in order[begin : begin + size]]
            cut = [
                (crop(one.pieces, max(one.target) > 0.5 and len(one.pieces) <= 4 * WINDOW, rng), one) for one in chosen
            ]
            cut.sort(key=lambda pair: len(pair[0]))
            groups: list[list[tuple[list[int], Item]]] = [[]]
            for pair in cut:
                if len(pair[0]) * (len(groups[-1]) + 1) > BATCH_TOKENS:
                    groups.append([])
                groups[-1].append(pair)
            rng.shuffle(groups)
            yield from groups


def loss_of(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Binary cross-entropy over the known labels. All are [batch, labels]."""
    losses = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    weight = weight * LABEL_WEIGHT
    return (losses * weight).sum() / (len(CATEGORIES) * len(logits)) * 3


def train(model: Classifier, items: Sequence[Item], recipe: Recipe, work: Path) -> None:
    """Trains ``model`` for ``recipe.minutes``; the rate falls to zero with them. Writes checkpoints to ``work``."""
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
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    peaks = [group["lr"] for group in optimizer.param_groups]
    start, saved = time.process_time(), time.monotonic()
    seconds = recipe.minutes * 60
    seen = tokens_seen = 0
    average = 0.0
    model.train()
    bar = tqdm(total=round(seconds), unit="s", mininterval=10)
    for batch in batches(items, rng):
        worked = time.process_time() - start
        done = worked / seconds
        if done >= 1:
            break
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * rate(done, recipe.warmup)
        tokens, mask = collate([window for window, _ in batch])
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bfloat16):
            logits = model(tokens, mask).float()
        loss = loss_of(
            logits, torch.tensor([one.target for _, one in batch]), torch.tensor([one.weight for _, one in batch])
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(body, 1.0)
        optimizer.step()
        seen += len(batch)
        tokens_seen += tokens.numel()
        average = 0.98 * average + 0.02 * loss.item() if average else loss.item()
        bar.set_postfix(loss=f"{average:.3f}", texts=seen, tokens=tokens_seen, refresh=False)
        bar.update(round(worked) - bar.n)
        if time.monotonic() - saved > CHECKPOINT_SECONDS:
            save_checkpoint(model, work)
            saved = time.monotonic()
    save_checkpoint(model, work)
    bar.close()


def rate(done: float, warmup: float) -> float:
    """The share of the peak learning rate: a linear rise, then a cosine to zero. ``done`` goes from 0 to 1."""
    if done < warmup:
        return (done + 1e-3) / warmup
    return 0.5 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))


def save_checkpoint(model: Classifier, work: Path) -> None:
    """Replaces ``checkpoint.safetensors`` in one step."""
    partial = work / "checkpoint.partial"
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, partial)
    partial.replace(work / "checkpoint.safetensors")
