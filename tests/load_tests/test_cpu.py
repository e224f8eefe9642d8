"""CPU time is counted over a tree of processes, the counting one left out."""

from __future__ import annotations

import os
import subprocess
import sys

from load_tests.cpu import CpuMeter, cpu_seconds, own_cpu_seconds, process_tree

CHILD = """
import subprocess, sys, time
grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(grandchild.pid, flush=True)
input()
end = time.process_time() + 0.3
while time.process_time() < end: pass
print("spun", flush=True)
input()
grandchild.kill()
grandchild.wait()
"""


def test_a_tree_is_found_and_its_work_counted() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        grandchild = int(child.stdout.readline())
        meter = CpuMeter([child.pid])

        assert process_tree([child.pid]) == {child.pid, grandchild}
        child.stdin.write("\n")
        child.stdin.flush()
        assert child.stdout.readline() == "spun\n"
        assert 0.25 < meter.seconds() < 2
        child.stdin.write("\n")


def test_processes_that_are_gone_count_nothing() -> None:
    assert cpu_seconds([2**22 + 1]) == {}


def test_this_process_is_left_out_of_trees() -> None:
    assert os.getpid() not in process_tree([os.getpid()])
    assert own_cpu_seconds() > 0
