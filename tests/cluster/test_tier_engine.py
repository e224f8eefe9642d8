"""What a replica of a tier imports, and the memory that it gives back."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import psutil

from cluster.process_memory import return_free_memory
from cluster.replica.tier_engine import make_engine


def test_a_replica_imports_neither_the_router_nor_the_application() -> None:
    modules = ("cluster.app", "cluster.ingress", "router.app_factory", "onnxruntime", "torch")
    code = f"import sys, {make_engine.__module__}; print([m for m in {modules!r} if m in sys.modules])"

    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)

    assert run.stdout.strip() == "[]"


def test_freed_memory_goes_back_to_the_system() -> None:
    # Blocks below the size from which the C library maps each by itself. The last stays, above the free ones.
    blocks = [np.ones(10_000, np.uint8) for _ in range(20_000)]
    process = psutil.Process()
    blocks[: len(blocks) - 1] = []
    before = process.memory_info().rss

    return_free_memory()

    assert before - process.memory_info().rss > 100_000_000
