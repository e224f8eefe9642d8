"""Which window of a long text its labels are trained on: the one that a model takes for the worst.

The service reads long texts in windows, of which the worst counts. A label that holds for a text need not hold for each
of its windows, so a window by chance would teach that harmless sentences are harmful.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from tqdm import tqdm

from deployments.models.training.safety.loop import Item
from deployments.models.training.safety.model import Classifier, collate
from deployments.models.training.safety.windows import WINDOW, windows

BATCH = 16  # windows
HOLDS = 0.5  # the probability of a label from which on it holds for a text


def with_worst_windows(model: Classifier, items: Sequence[Item]) -> list[Item]:
    """Returns ``items``, where those longer than a window of which any label holds are that window of theirs for which
    ``model`` gives such a label the highest logit. Sets ``model`` to evaluation."""
    return [
        _worst(model, one) if len(one.pieces) > WINDOW and max(one.target) > HOLDS else one
        for one in tqdm(items, unit="text", mininterval=10)
    ]


@torch.no_grad()
def _worst(model: Classifier, one: Item) -> Item:
    cut = windows(one.pieces)
    model.eval()
    holds = torch.tensor(one.target) > HOLDS
    with torch.autocast("cpu", torch.bfloat16):
        logits = torch.cat([model(*collate(cut[begin : begin + BATCH])).float() for begin in range(0, len(cut), BATCH)])
    worst = int(logits[:, holds].amax(dim=1).argmax())
    return replace(one, pieces=cut[worst][1:-1])
