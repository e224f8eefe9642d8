"""The training loop of the upper layers: AdamW on stored states, in batches of like length, for a given time."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from tqdm import tqdm

from deployments.models.training.safety.example import Example
from deployments.models.training.safety.labels import LABELS
from deployments.models.training.safety.loop import loss_of, rate
from deployments.models.training.safety.second.states import States, Window
from deployments.models.training.safety.second.upper import Upper
from deployments.models.training.safety.written import COPIES, is_written

BATCH_TOKENS: Final = 2048
POOL: Final = 1500  # windows that are sorted by length together


@dataclass(frozen=True, slots=True)
class Recipe:
    """``rounds``: minutes of the processor and peak learning rate of the layers, one round after the other. In each the
    rate rises and falls to zero."""

    rounds: tuple[tuple[float, float], ...] = ((21, 1.2e-4), (24, 1.0e-4))
    head_learning_rate: float = 1e-3
    warmup: float = 0.04
    seed: int = 0


def train(model: Upper, states: States, examples: Sequence[Example], recipe: Recipe) -> None:
    """Trains ``model``. The windows of ``states`` are of ``examples``, by number."""
    torch.manual_seed(recipe.seed)
    target = torch.tensor([[each.known.get(label, 0.0) for label in LABELS] for each in examples])
    known = torch.tensor([[float(label in each.known) for label in LABELS] for each in examples])
    windows = [window for window in states.windows for _ in range(COPIES if is_written(examples[window.text]) else 1)]
    model.train()
    for number, (minutes, learning_rate) in enumerate(recipe.rounds):
        rng = random.Random(f"second {recipe.seed} {number}")
        _round(model, states, batches(windows, rng), target, known, recipe, 60 * minutes, learning_rate)


def batches(windows: Sequence[Window], rng: random.Random) -> Iterator[list[Window]]:
    """Yields batches without end, of at most BATCH_TOKENS tokens and like lengths."""
    while True:
        order = rng.sample(windows, len(windows))
        groups: list[list[Window]] = []
        for begin in range(0, len(order), POOL):
            pool = sorted(order[begin : begin + POOL], key=lambda window: window.length)
            groups.append([])
            for window in pool:
                if window.length * (len(groups[-1]) + 1) > BATCH_TOKENS:
                    groups.append([])
                groups[-1].append(window)
        rng.shuffle(groups)
        yield from (group for group in groups if group)


def _round(
    model: Upper,
    states: States,
    chosen: Iterator[list[Window]],
    target: Tensor,
    known: Tensor,
    recipe: Recipe,
    seconds: float,
    learning_rate: float,
) -> None:
    body = [value for name, value in model.named_parameters() if not name.startswith("head")]
    groups = [
        {"params": body, "lr": learning_rate},
        {"params": list(model.head.parameters()), "lr": recipe.head_learning_rate},
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    peaks = [group["lr"] for group in optimizer.param_groups]
    start, average = time.process_time(), 0.0
    bar = tqdm(total=round(seconds), unit="s", mininterval=10)
    for batch in chosen:
        worked = time.process_time() - start
        if worked >= seconds:
            break
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * rate(worked / seconds, recipe.warmup)
        texts = [window.text for window in batch]
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(*states.batch(batch)).float()
        loss = loss_of(logits, target[texts], known[texts])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(body, 1.0)
        optimizer.step()
        average = 0.98 * average + 0.02 * loss.item() if average else loss.item()
        bar.set_postfix(loss=f"{average:.3f}", refresh=False)
        bar.update(round(worked) - bar.n)
    bar.close()
