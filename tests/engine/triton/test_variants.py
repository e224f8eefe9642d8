"""Every kernel compiles for a card that is not there, and keeps to its registers. The command by itself does so for all
shapes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a card the kernels themselves are compiled and run")
def test_all_kernels_compile_for_hopper_without_a_card() -> None:
    """In a process of its own: here Triton interprets."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}

    done = subprocess.run(
        [sys.executable, "-m", "engine.kernels.triton.variants", "--one-of-each"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )

    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert done.stdout.count("\n") > 15


@pytest.mark.slow
def test_products_in_groups_fit_a_card_with_little_shared_memory() -> None:
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", "engine.kernels.triton.variants", "--capability", "80", "--only", "4 bits, small card"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    shared = [int(line.split()[-1]) for line in done.stdout.splitlines()[1:]]
    assert len(shared) == 4
    assert max(shared) <= 99 * 1024
