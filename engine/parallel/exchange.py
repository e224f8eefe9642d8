"""What ranks need of each other during a step: sums, and rows put side by side."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Exchange(Protocol):
    """All ranks call the same operations in the same order with tensors of the same shapes and dtypes."""

    @property
    def rank(self) -> int:
        """Number of this one, from 0."""
        ...

    @property
    def ranks(self) -> int:
        """How many there are."""
        ...

    def sum(self, x: Tensor) -> Tensor:
        """The sum of every rank's ``x``, the same on all of them, bit for bit; ``x`` itself may be overwritten. In
        float32 no number of it depends on the size of ``x``."""
        ...

    def gather(self, x: Tensor) -> Tensor:
        """On rank 0 the columns of every rank's ``x`` [rows, n] side by side, [rows, ranks * n]; elsewhere ``x``."""
        ...

    def abort(self) -> None:
        """From another thread: operations under way end, in error or with wrong numbers. There are no more after."""
        ...


class Alone:
    """The only rank."""

    rank = 0
    ranks = 1

    def sum(self, x: Tensor) -> Tensor:
        return x

    def gather(self, x: Tensor) -> Tensor:
        return x

    def abort(self) -> None:
        return None


ALONE = Alone()
