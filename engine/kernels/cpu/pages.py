"""Memory in huge pages, for what is read from end to end in every step: with pages of 4 KiB, each needs a look-up of
its own, and the processor's prefetchers stop at each border."""

from __future__ import annotations

import contextlib
import mmap

import torch
from torch import Tensor

HUGE = 2 << 20  # bytes; of a huge page on x86-64, and on aarch64 with pages of 4 KiB


def zeros(nbytes: int) -> Tensor:
    """``nbytes`` zeros, uint8; a system that has no huge pages to give, gives others. Only what is written takes
    memory, as with torch.zeros."""
    if nbytes < HUGE:
        return torch.zeros(nbytes, dtype=torch.uint8)
    mapped = mmap.mmap(-1, nbytes + HUGE)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without them: the memory is as good, and slower
            mapped.madvise(mmap.MADV_HUGEPAGE)
    whole = torch.frombuffer(mapped, dtype=torch.uint8)  # which keeps the mapping
    start = -whole.data_ptr() % HUGE
    return whole[start : start + nbytes]


def moved(tensor: Tensor) -> Tensor:
    """The same numbers, contiguous, in such memory."""
    place = zeros(tensor.nbytes).view(tensor.dtype).view(tensor.shape)
    place.copy_(tensor)
    return place
