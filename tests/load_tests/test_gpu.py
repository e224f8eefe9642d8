"""The command for a card: what it does without one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

COMMAND = Path(__file__).parents[2] / "load_tests" / "gpu" / "run.py"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    return subprocess.run(
        [sys.executable, str(COMMAND), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_without_a_card_it_says_so(tmp_path: Path) -> None:
    done = run("--out", str(tmp_path))

    assert done.returncode == 2
    assert "no card" in done.stdout


def test_an_unknown_section_is_refused(tmp_path: Path) -> None:
    done = run("--out", str(tmp_path), "--sections", "limits,speed")

    assert done.returncode == 2
    assert "no section speed" in done.stderr


def test_a_dry_run_writes_its_results(tmp_path: Path) -> None:
    """The sections that reach into the engine; the others call its kernels, which have tests."""
    done = run("--out", str(tmp_path), "--dry", "--sections", "limits,engine,peers")

    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((tmp_path / "results.json").read_text())
    assert "copy" in (tmp_path / "results.md").read_text()
