"""``Opinions``: what both models say of each window of a text, as the service runs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from deployments.models.training.safety.scoring import WindowLogits
from deployments.models.training.safety.second.second_model import SecondModel
from deployments.models.training.safety.windows import CLS, SEP, WordPieces, window_places

BATCH = 8  # windows
MAX_TOKENS = 160  # of a window in the second model; a window of word pieces mostly has fewer


@dataclass(frozen=True, slots=True)
class Opinions:
    """``first`` and ``second``: logits, float32 [windows, labels]. ``texts``: int64 [windows], the number of the text
    of each window."""

    first: Tensor
    second: Tensor
    texts: Tensor

    def highest(self, logits: Tensor) -> Tensor:
        """Returns the highest of ``logits`` [windows, labels] of each text, [texts, labels]."""
        low = torch.full((int(self.texts.max()) + 1, logits.shape[1]), -torch.inf)
        return low.scatter_reduce(0, self.texts[:, None].expand_as(logits), logits, "amax")


def opinions(first: WindowLogits, second: SecondModel, pieces: WordPieces, texts: Sequence[str]) -> Opinions:
    """Returns the opinions on all windows of ``texts``."""
    windows = [
        (number, [CLS, *ids[begin:end], SEP], text[spans[begin][0] : spans[end - 1][1]] if end > begin else "")
        for number, text in enumerate(texts)
        for ids, spans in [pieces.with_spans(text)]
        for begin, end in window_places(len(ids))
    ]
    windows.sort(key=lambda window: len(window[1]))
    firsts, seconds = [], []
    for begin in tqdm(range(0, len(windows), BATCH), unit="batch", mininterval=10):
        batch = windows[begin : begin + BATCH]
        firsts.append(first([ids for _, ids, _ in batch]))
        seconds.append(second.logits([span for _, _, span in batch], MAX_TOKENS))
    return Opinions(torch.cat(firsts), torch.cat(seconds), torch.tensor([number for number, _, _ in windows]))
