"""Products of the compiled kernels."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from engine.kernels.cpu.library import Linear


@contextmanager
def threads(library: ctypes.CDLL, count: int) -> Iterator[int]:
    pool = library.manta_pool_open(count)
    yield pool
    library.manta_pool_close(pool)


def product(library: ctypes.CDLL, linear: Linear, x: Tensor, count: int = 1) -> Tensor:
    """[rows, outputs] of ``x`` [rows, inputs], on ``count`` threads."""
    y, room = torch.empty(len(x), linear.outputs), torch.empty(-(-len(x) // 16) * 16, x.shape[1])
    with threads(library, count) as pool:
        library.manta_product(ctypes.byref(linear), x.data_ptr(), y.data_ptr(), room.data_ptr(), len(x), pool)
    return y
