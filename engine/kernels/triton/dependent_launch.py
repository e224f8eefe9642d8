"""Kernels that may start before the previous kernel ends (programmatic dependent launch, CUDA C++ guide, section 4.5).

Such a kernel starts on multiprocessors as they become free, and first does work that depends on no other kernel: it
computes addresses and reads weights. Then it waits until all kernels before it have finished and their writes are
visible. Each such kernel must wait before it touches non-constant memory. If B skips the wait, its successor C may
overlap B's predecessor A.
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
    """Lets the next kernel launch, then waits until all earlier ones finish. Before this call, touch only memory that
    no earlier kernel writes, and write nothing they read. Without OVERLAP, it does nothing."""
    if OVERLAP:
        gdc_launch_dependents()
        gdc_wait()


@cache
def options(device: torch.device) -> tuple[bool, dict[str, bool]]:
    """Returns whether early launch is supported on ``device``, and the launch options."""
    able = device.type == "cuda" and torch.cuda.get_device_capability(device) >= _CAPABILITY
    return able, {"launch_pdl": True} if able else {}
