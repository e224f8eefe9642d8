"""Memory: how much is available, and tensors that take it only when written."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from math import prod
from pathlib import Path

import torch
from torch import Tensor

MEMINFO = Path("/proc/meminfo")


def available_bytes(device: torch.device, meminfo: Path = MEMINFO) -> int | None:
    """Returns the bytes of memory that can still be allocated on ``device``, or None if the system does not say. For a
    CPU it reads ``MemAvailable`` from ``meminfo``."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free
    try:
        lines = meminfo.read_text("ascii").splitlines()
    except OSError:
        return None
    kibibytes = next((line.split()[1] for line in lines if line.startswith("MemAvailable:")), None)
    return None if kibibytes is None else int(kibibytes) * 1024


def lazy_zeros(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Returns a tensor of zeros with the given shape, dtype and device. On a CPU its pages take memory only once they
    are written, so that an empty KV cache needs none; ``torch.zeros`` writes all pages."""
    nbytes = prod(shape) * dtype.itemsize
    if device.type != "cpu" or nbytes < mmap.PAGESIZE:
        return torch.zeros(tuple(shape), dtype=dtype, device=device)
    pages = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return torch.frombuffer(pages, dtype=torch.uint8).view(dtype).view(tuple(shape))
