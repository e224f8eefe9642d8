"""A kernel that begins while the one before it ends (programmatic dependent launch, CUDA C++ guide, section 4.5).

A kernel that is launched so is placed on multiprocessors as they become free, and does what depends on no other: it
computes addresses, and reads weights. Then it waits until all kernels before it are complete and their writes are
there. Everything that is launched so must wait before it reads or writes what is not constant; a kernel that never
waited would let the one after it run beside the one before it.
"""

# ruff: noqa: N803 (what is known when a kernel is compiled stands in capitals)
from __future__ import annotations

from functools import cache

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

_CAPABILITY = (9, 0)  # Hopper


@triton.jit
def wait_for_inputs(OVERLAP: tl.constexpr) -> None:
    """Lets the next kernel begin, and waits for those before. No address that was written before may be read, or
    written, above this line."""
    if OVERLAP:
        gdc_launch_dependents()
        gdc_wait()


@cache
def options(device: torch.device) -> tuple[bool, dict[str, bool]]:
    """Whether a kernel on ``device`` may begin early, and what its launch is told."""
    able = device.type == "cuda" and torch.cuda.get_device_capability(device) >= _CAPABILITY
    return able, {"launch_pdl": True} if able else {}
