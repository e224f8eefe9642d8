"""``Opinions``: what both models say of each window of a text, as the service runs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from safety.classifier.second_model import SecondModel
from safety.classifier.window_classifier import WindowClassifier

BATCH = 8  # windows


@dataclass(frozen=True, slots=True)
class Opinions:
    """``first`` and ``second``: logits, float32 [windows, labels]. ``texts``: int64 [windows], the number of the text
    of each window. ``whole``: bool [windows], the second model can read it to its end."""

    first: Tensor
    second: Tensor
    texts: Tensor
    whole: Tensor

    def highest(self, logits: Tensor) -> Tensor:
        """Returns the highest of ``logits`` [windows, labels] of each text, [texts, labels]."""
        low = torch.full((int(self.texts.max()) + 1, logits.shape[1]), -torch.inf)
        return low.scatter_reduce(0, self.texts[:, None].expand_as(logits), logits, "amax")


def opinions(first: WindowClassifier, second: SecondModel, longest: int, texts: Sequence[str]) -> Opinions:
    """Returns the opinions on all windows of ``texts``. ``longest``: tokens of a sequence that may have been cut."""
    windows = [
        (number, ids, second.sequence(text[begin:end]))
        for number, text in enumerate(texts)
        for ids, (begin, end) in zip(first.windows(text), first.spans(text), strict=True)
    ]
    windows.sort(key=lambda window: len(window[1]))
    firsts, seconds = [], []
    for begin in tqdm(range(0, len(windows), BATCH), unit="batch", mininterval=10):
        batch = windows[begin : begin + BATCH]
        firsts.append(torch.from_numpy(first.logits([ids for _, ids, _ in batch])))
        seconds.append(torch.from_numpy(second.logits([tokens for _, _, tokens in batch])))
    texts_of = torch.tensor([number for number, _, _ in windows])
    whole = torch.tensor([len(tokens) < longest for _, _, tokens in windows])
    return Opinions(torch.cat(firsts), torch.cat(seconds), texts_of, whole)
