"""Logits of texts by window, as the service computes them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from deployments.models.training.safety.model import Classifier, collate
from deployments.models.training.safety.windows import WordPieces, windows

BATCH_TOKENS = 4096


@torch.no_grad()
def window_logits(model: Classifier, pieces: WordPieces, texts: Sequence[str]) -> list[Tensor]:
    """Returns the logits [windows, labels] of each text."""
    model.eval()
    flat = [(place, window) for place, ids in enumerate(pieces(texts)) for window in windows(ids)]
    order = sorted(range(len(flat)), key=lambda place: len(flat[place][1]))
    logits: list[Tensor] = [torch.empty(0)] * len(flat)
    bar = tqdm(total=len(order), unit="window", mininterval=10)
    while order:
        size = max(1, BATCH_TOKENS // len(flat[order[-1]][1]))
        group, order = order[-size:], order[:-size]
        for place, row in zip(group, model(*collate([flat[place][1] for place in group])), strict=True):
            logits[place] = row
        bar.update(len(group))
    bar.close()
    found: list[list[Tensor]] = [[] for _ in texts]
    for (place, _), row in zip(flat, logits, strict=True):
        found[place].append(row)
    return [torch.stack(rows) for rows in found]


def text_logits(model: Classifier, pieces: WordPieces, texts: Sequence[str]) -> Tensor:
    """Returns for each text and label the highest logit of its windows, [texts, labels]."""
    return torch.stack([rows.amax(dim=0) for rows in window_logits(model, pieces, texts)])
