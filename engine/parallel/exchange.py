"""``Exchange``: the collective operations between ranks during a step: sums and gathers."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Exchange(Protocol):
    """The collective operations of one rank. All ranks must call the same operations in the same order, with tensors of
    the same shapes and dtypes."""

    @property
    def rank(self) -> int:
        """The number of this rank, from 0."""
        ...

    @property
    def ranks(self) -> int:
        """The number of ranks (the tensor parallel size)."""
        ...

    def sum(self, x: Tensor) -> Tensor:
        """Returns the sum of all ranks' ``x`` (all-reduce), bitwise the same on all ranks. ``x`` itself may be
        overwritten. In float32 the result for an element does not depend on the shape of ``x``."""
        ...

    def gather(self, x: Tensor) -> Tensor:
        """Returns, on rank 0, the columns of all ranks' ``x`` [rows, n] side by side, [rows, ranks * n]; on other
        ranks, ``x``."""
        ...

    def abort(self) -> None:
        """Ends the running operations, which raise or return wrong numbers. It may be called from another thread. No
        operation may follow."""
        ...


class Alone:
    """The exchange of a single rank. Implements ``Exchange``."""

    rank = 0
    ranks = 1

    def sum(self, x: Tensor) -> Tensor:
        return x

    def gather(self, x: Tensor) -> Tensor:
        return x

    def abort(self) -> None:
        return None


ALONE = Alone()
