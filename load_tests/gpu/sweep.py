"""Tries shapes of kernels, load by load: processes side by side compile them, then they are timed one by one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch

from load_tests.gpu.clock import seconds_of
from load_tests.gpu.figure import Bench, Case, Figure
from load_tests.gpu.trials import Group, Trial, groups

ROOT = Path(__file__).resolve().parents[2]
COMPILERS = max(1, (os.cpu_count() or 1) - 2)
COMPILE_S = 150.0
BEST = 4


def cases(bench: Bench) -> Iterator[Case]:
    """All groups, after what they need is compiled."""
    if not bench.dry:
        yield Case("compile", _compile)
    for group in groups(bench):
        yield Case(group.name, partial(_best, bench, group))


def _compile() -> list[Figure]:
    """Fills Triton's cache. What is not ready in time is compiled when it is timed."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "load_tests.gpu.sweep"]
    workers = [
        subprocess.Popen([*command, str(index), str(COMPILERS)], cwd=ROOT, stderr=subprocess.DEVNULL)
        for index in range(COMPILERS)
    ]
    late = 0
    for worker in workers:
        try:
            worker.wait(max(0.1, COMPILE_S - (time.perf_counter() - began)))
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()
            late += 1
    note = f"{COMPILERS} processes, {late} not done"
    return [Figure("compiled", time.perf_counter() - began, "s", note=note)]


def _best(bench: Bench, group: Group) -> list[Figure]:
    """The first, which is the usual or a peer, and the quickest; what does not compile or fit is counted."""
    times: list[tuple[float, str]] = []
    failed: list[str] = []
    for trial in group.make():
        try:
            times.append((sum(seconds_of(bench, work, runs=8) for work in trial.works), trial.label))
        except Exception as error:
            if "CUDA error" in str(error):
                raise
            failed.append(f"{trial.label}: {type(error).__name__}")
    figures = [bench.rated("first", times[0][0], group.amount, group.limit, note=times[0][1])] if times else []
    for place, (seconds, label) in enumerate(sorted(times)[:BEST]):
        figures.append(bench.rated(f"best {place + 1}", seconds, group.amount, group.limit, note=label))
    return [*figures, Figure("failed", len(failed), "shapes", note="; ".join(failed))] if failed else figures


def _tried(trial: Trial) -> bool:
    """Runs each work once, for the sake of Triton's cache."""
    try:
        for work in trial.works:
            work()
        torch.cuda.synchronize()
    except RuntimeError as error:
        if "CUDA error" in str(error):
            raise
        return False
    except Exception:  # noqa: BLE001 - reported when the shape is timed
        return False
    return True


def main() -> int:
    """Runs every ``of``-th trial, from the one numbered ``index``."""
    index, of = int(sys.argv[1]), int(sys.argv[2])
    bench = Bench(torch.device("cuda:0"), False)
    number = 0
    with torch.inference_mode():
        for group in groups(bench):
            for trial in group.make():
                if number % of == index:
                    _tried(trial)
                number += 1
            torch.cuda.empty_cache()
    return 0


if __name__ == "__main__":
    sys.exit(main())
