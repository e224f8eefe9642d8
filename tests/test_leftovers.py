"""The check at the end of a test session sees what the session has left, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.leftovers import left_over

ROOT = Path(__file__).resolve().parents[1]
ORPHAN = ["sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $!"]
"""Its parent ends at once."""


def test_children_and_orphans_are_seen() -> None:
    child = subprocess.Popen(["sleep", "60"])
    orphan = int(subprocess.run(ORPHAN, capture_output=True, text=True, check=True).stdout)

    found = {process.pid for process in left_over(0)}
    child.kill()
    child.wait()
    os.kill(orphan, signal.SIGKILL)

    assert {child.pid, orphan} <= found
    assert not {child.pid, orphan} & {process.pid for process in left_over(5)}


def test_what_others_have_started_is_not() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "MANTA_TEST_SESSION"}
    foreign = int(subprocess.run(ORPHAN, capture_output=True, text=True, check=True, env=environment).stdout)

    found = {process.pid for process in left_over(0)}
    os.kill(foreign, signal.SIGKILL)

    assert foreign not in found


@pytest.mark.parametrize("leaves", [True, False])
def test_a_session_that_leaves_a_process_fails(tmp_path: Path, leaves: bool) -> None:
    (tmp_path / "conftest.py").write_text("from tests.leftovers import mark, pytest_sessionfinish\n\nmark()\n")
    command = ORPHAN if leaves else ["true"]
    body = f"import subprocess\n\ndef test_one():\n    subprocess.run({command!r}, check=True)\n"
    (tmp_path / "test_one.py").write_text(body)

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-c", "/dev/null", "-p", "no:cacheprovider", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )

    assert ("left by the tests" in done.stdout) == leaves
    assert done.returncode == int(leaves), done.stdout
