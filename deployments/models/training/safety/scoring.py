"""Logits of texts: by the weights in training, and by the files as the service runs them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from deployments.models.training.safety.model import (
    EPSILON,
    HEADS,
    HIDDEN,
    INTERMEDIATE,
    LAYERS,
    POSITIONS,
    VOCABULARY,
    Classifier,
    collate,
)
from deployments.models.training.safety.windows import WordPieces, windows
from safety.encoder.architecture import Architecture
from safety.encoder.encoder import Encoder
from safety.encoder.precision import Precision
from safety.encoder.weights import Weights

BATCH_TOKENS = 4096
WindowLogits = Callable[[Sequence[list[int]]], Tensor]
"""Returns the logits of windows, [windows, labels]."""


def of_model(model: Classifier) -> WindowLogits:
    """The classifier in torch, in float32."""
    model.eval()

    @torch.no_grad()
    def logits(batch: Sequence[list[int]]) -> Tensor:
        result: Tensor = model(*collate(batch))
        return result

    return logits


def of_files(folder: Path) -> WindowLogits:
    """The files in ``folder``, by the service's runtime in int8. ``config.json`` is not read."""
    weights = Weights.read(folder / "model.safetensors")
    head = torch.tensor(np.array(weights.dense("head.weight")))
    bias = torch.tensor(np.array(weights.dense("head.bias")))
    shape = Architecture(
        layers=LAYERS,
        hidden=HIDDEN,
        heads=HEADS,
        intermediate=INTERMEDIATE,
        vocabulary=VOCABULARY,
        max_tokens=POSITIONS,
        norm_epsilon=EPSILON,
    )
    encoder = Encoder(shape, weights, Precision.INT8)

    def logits(batch: Sequence[list[int]]) -> Tensor:
        states = encoder.encode(batch)
        return torch.tensor(np.concatenate([states.mean(), states.first()], axis=1)) @ head.T + bias

    return logits


def text_logits(window_logits: WindowLogits, pieces: WordPieces, texts: Sequence[str]) -> Tensor:
    """Returns for each text and label the highest logit of its windows, [texts, labels]."""
    flat = [(place, window) for place, ids in enumerate(pieces(texts)) for window in windows(ids)]
    order = sorted(range(len(flat)), key=lambda place: len(flat[place][1]))
    best: list[Tensor | None] = [None] * len(texts)
    bar = tqdm(total=len(order), unit="window", mininterval=10)
    while order:
        size = max(1, BATCH_TOKENS // len(flat[order[-1]][1]))
        group, order = order[-size:], order[:-size]
        for place, row in zip(group, window_logits([flat[place][1] for place in group]), strict=True):
            text = flat[place][0]
            known = best[text]
            best[text] = row if known is None else torch.maximum(known, row)
        bar.update(len(group))
    bar.close()
    return torch.stack([row for row in best if row is not None])
