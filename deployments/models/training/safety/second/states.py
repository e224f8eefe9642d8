"""``States``: what the trunk makes of all training texts, computed once, since the trunk is not trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from deployments.models.training.safety.second.trunk import Trunk

BATCH_TOKENS = 2048


@dataclass(frozen=True, slots=True)
class Window:
    """A window of the text with the number ``text``: ``length`` states from the row ``start`` on, its end included."""

    text: int
    start: int
    length: int


@dataclass(frozen=True, slots=True)
class States:
    """``rows``: bfloat16 [tokens, hidden], without those of the prefix, which are the same for all: ``prefix``, float32
    [tokens, hidden]."""

    rows: Tensor
    prefix: Tensor
    windows: tuple[Window, ...]

    def batch(self, windows: Sequence[Window]) -> tuple[Tensor, Tensor]:
        """Returns the states of windows with the prefix, float32 [windows, tokens, hidden], padded on the right, and
        their lengths without it, int64 [windows]."""
        ahead = len(self.prefix)
        lengths = torch.tensor([window.length for window in windows])
        padded = torch.zeros(len(windows), ahead + int(lengths.max()), self.prefix.shape[1])
        padded[:, :ahead] = self.prefix
        for row, window in enumerate(windows):
            padded[row, ahead : ahead + window.length] = self.rows[window.start : window.start + window.length]
        return padded, lengths

    def save(self, path: Path) -> None:
        index = torch.tensor([(window.text, window.start, window.length) for window in self.windows])
        torch.save({"rows": self.rows, "prefix": self.prefix, "windows": index}, path)

    @classmethod
    def load(cls, path: Path) -> States:
        """Raises OSError."""
        stored = torch.load(path)
        windows = tuple(Window(*each) for each in stored["windows"].tolist())
        return cls(stored["rows"], stored["prefix"], windows)


def compute(trunk: Trunk, sequences: Sequence[tuple[int, list[int]]], prefix: list[int], end: int) -> States:
    """Returns the states of ``sequences``: the number of a text, and the tokens of one of its windows. Windows of one
    length are computed together, so that none is padded."""
    ordered = sorted(sequences, key=lambda pair: len(pair[1]))
    total = sum(len(tokens) + 1 for _, tokens in ordered)
    ahead = trunk.states(torch.tensor([prefix]))[0]
    rows = torch.empty(total, ahead.shape[1], dtype=torch.bfloat16)
    windows: list[Window] = []
    bar = tqdm(total=total, unit="token", mininterval=10)
    for length, group in groupby(ordered, key=lambda pair: len(pair[1])):
        alike = list(group)
        size = max(1, BATCH_TOKENS // (len(prefix) + length + 1))
        for begin in range(0, len(alike), size):
            batch = alike[begin : begin + size]
            tokens = torch.tensor([[*prefix, *each, end] for _, each in batch])
            states = trunk.states(tokens)[:, len(prefix) :].flatten(0, 1)
            start = bar.n
            rows[start : start + len(states)] = states
            windows += [Window(text, start + row * (length + 1), length + 1) for row, (text, _) in enumerate(batch)]
            bar.update(len(states))
    bar.close()
    return States(rows, ahead.float(), tuple(windows))
