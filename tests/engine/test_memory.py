"""Memory that is set aside for later costs nothing until it is written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from engine.memory import lazy_zeros

CPU = torch.device("cpu")


def resident_bytes() -> int:
    status = Path("/proc/self/status").read_text("ascii")
    return 1024 * int(re.search(r"VmRSS:\s+(\d+) kB", status)[1])  # type: ignore[index]


def test_zeros_take_memory_when_they_are_written() -> None:
    before = resident_bytes()

    pages = lazy_zeros((64, 1 << 20), torch.float32, CPU)

    assert resident_bytes() - before < 16 << 20
    pages[:32] = 1.0
    assert resident_bytes() - before > 100 << 20
    assert pages[31:33, 0].tolist() == [1.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8, torch.float8_e4m3fn], ids=str)
@pytest.mark.parametrize("shape", [(3,), (7, 4, 16, 33)])
def test_zeros_are_zeros_of_that_shape(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    zeros = lazy_zeros(shape, dtype, CPU)

    assert (tuple(zeros.shape), zeros.dtype) == (shape, dtype)
    assert not zeros.float().any()
    zeros.view(-1)[-1:].copy_(torch.ones(1))
    assert float(zeros.float().sum()) == 1.0
