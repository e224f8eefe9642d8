"""What the machine itself can do, measured here and now: reading memory, and multiplying bfloat16 matrices.

limits.c measures it: no library's products and sums are taken for what the machine can do.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

SOURCE = Path(__file__).with_name("limits.c")
FLAGS = ("-O3", "-march=native", "-std=gnu11", "-shared", "-fPIC", "-pthread", "-fvisibility=hidden", "-Wno-psabi")
PRODUCTS_S = 0.2  # of a measurement of products


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes a second that all cores read together, and floating-point operations a second of products of bfloat16 in
    registers."""

    read_bytes: float
    bf16_flops: float

    def tokens_per_s(self, parameters: int, embedding: int, requests: int, prompt: int, answer: int) -> float:
        """Output tokens a second of ``requests`` at once, were nothing but weights read and multiplied.

        A step takes the longer of reading all weights and multiplying them with its rows; the head's ``embedding``
        parameters work for one row of a prompt only.
        """
        body = parameters - embedding
        prefill = max(
            2 * (body * requests * prompt + embedding * requests) / self.bf16_flops, 2 * parameters / self.read_bytes
        )
        step = max(2 * parameters * requests / self.bf16_flops, 2 * parameters / self.read_bytes)
        return requests * answer / (prefill + (answer - 1) * step)


def measure(size_mb: int = 512, rounds: int = 5) -> Limits:
    """The best of ``rounds``: what disturbs makes slower, never faster."""
    memory = torch.ones(size_mb << 18)
    found = [measure_once(memory) for _ in range(rounds)]
    return Limits(max(each.read_bytes for each in found), max(each.bf16_flops for each in found))


def measure_once(memory: Tensor, threads: int | None = None) -> Limits:
    """Reads ``memory`` and multiplies, on all cores or ``threads``. Of two ways to read, the faster counts."""
    threads = threads or cores()
    library = _library()
    reads = [library.bytes_per_s(memory.data_ptr(), memory.nbytes, threads, ahead) for ahead in (0, 1)]
    return Limits(max(reads), library.products_per_s(threads, PRODUCTS_S, has_tiles()))


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


@cache
def has_tiles() -> bool:
    """Whether products are measured in the tile registers of AMX: where they are, unless MANTA_AMX is off, which keeps
    the engine from using them too."""
    return os.environ.get("MANTA_AMX") != "off" and bool(_library().may_use_tiles())


@cache
def _library() -> ctypes.CDLL:
    """limits.c, compiled for this processor. Raises RuntimeError without a C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise RuntimeError("a C compiler is needed to measure what the machine can do")
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "limits.so"
        subprocess.run([compiler, *FLAGS, str(SOURCE), "-o", str(made)], check=True)
        library = ctypes.CDLL(str(made))
    library.bytes_per_s.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int]
    library.bytes_per_s.restype = ctypes.c_double
    library.products_per_s.argtypes = [ctypes.c_int, ctypes.c_double, ctypes.c_int]
    library.products_per_s.restype = ctypes.c_double
    return library
