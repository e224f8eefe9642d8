"""Counts of tokens, for penalties."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_FIRST_ROOM = 64


class TokenCounts:
    """Counts how often each token occurs, in the order of first occurrence. Adding a token costs O(1)."""

    def __init__(self) -> None:
        self._places: dict[int, int] = {}
        self._ids = np.empty(_FIRST_ROOM, np.int64)
        self._counts = np.zeros(_FIRST_ROOM, np.float32)

    def __len__(self) -> int:
        """Returns the number of different tokens."""
        return len(self._places)

    @property
    def ids(self) -> Tensor:
        """The tokens, int64 [len]. Shares memory with this object."""
        return torch.from_numpy(self._ids[: len(self)])

    @property
    def counts(self) -> Tensor:
        """The count of each token, float32 [len]. Shares memory with this object."""
        return torch.from_numpy(self._counts[: len(self)])

    def copy(self) -> TokenCounts:
        """Returns an independent copy."""
        twin = TokenCounts()
        twin._places, twin._ids, twin._counts = dict(self._places), self._ids.copy(), self._counts.copy()
        return twin

    def add(self, tokens: Sequence[int]) -> None:
        """Adds one to the count of each of ``tokens``, once per occurrence."""
        for token in tokens:
            place = self._places.setdefault(token, len(self._places))
            if place == len(self._ids):
                self._grow()
            self._ids[place] = token
            self._counts[place] += 1

    def _grow(self) -> None:
        """Doubles the capacity."""
        room = len(self._ids)
        self._ids = np.concatenate((self._ids, np.empty(room, np.int64)))
        self._counts = np.concatenate((self._counts, np.zeros(room, np.float32)))
