"""What the card itself can do, here and now: everything else is told as a part of it."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Iterator

import torch
import triton

from load_tests.gpu.clock import seconds_of
from load_tests.gpu.figure import Bench, Case, Figure


def cases(bench: Bench) -> Iterator[Case]:
    """Copying, multiplying, and what runs it all."""
    yield Case("copy", lambda: [_copy(bench)])
    yield Case("matmul", lambda: [_matmul(bench)])
    yield Case("machine", lambda: _machine(bench))


def _copy(bench: Bench) -> Figure:
    source = torch.ones(1 << 16 if bench.dry else 4 << 30, dtype=torch.uint8, device=bench.device)
    target = torch.empty_like(source)
    # A graph copies by other means than kernels do, and takes half as long again.
    rate = 2 * source.nbytes / seconds_of(bench, lambda: target.copy_(source), captured=False)
    return Figure("copy", rate, "B/s", note=f"bytes read and written; {rate / 1e9:.0f} GB/s")


def _matmul(bench: Bench) -> Figure:
    side = 64 if bench.dry else 8192
    a, b = (torch.randn(side, side, dtype=torch.bfloat16, device=bench.device) for _ in range(2))
    out = torch.empty_like(a)
    rate = 2 * side**3 / seconds_of(bench, lambda: torch.mm(a, b.t(), out=out))
    return Figure("matmul", rate, "FLOP/s", note=f"bfloat16, {side} cubed; {rate / 1e12:.1f} TFLOP/s")


def _machine(bench: Bench) -> list[Figure]:
    versions = f"torch {torch.__version__}, triton {triton.__version__}, Python {platform.python_version()}"
    if bench.dry:
        return [Figure("card", 0, "", note="none: Triton's interpreter"), Figure("versions", 0, "", note=versions)]
    card = torch.cuda.get_device_properties(bench.device)
    told = f"{card.name}, {card.multi_processor_count} multiprocessors, CUDA {torch.version.cuda}"
    return [
        Figure("card", card.total_memory / 2**30, "GiB", note=told),
        Figure("versions", 0, "", note=versions),
        Figure("clocks", 0, "", note=_clocks()),
    ]


def _clocks() -> str:
    if shutil.which("nvidia-smi") is None:
        return "no nvidia-smi"
    wanted = "clocks.sm,clocks.mem,clocks.max.sm,power.draw,power.limit,temperature.gpu"
    command = ["nvidia-smi", f"--query-gpu={wanted}", "--format=csv"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    return " / ".join((found.stdout or found.stderr).split("\n")[:2])
