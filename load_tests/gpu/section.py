"""One section in a process of its own: what breaks the card's context there breaks no other section."""

from __future__ import annotations

import gc
import time
import traceback
from importlib import import_module
from pathlib import Path

import torch

from load_tests.gpu import report
from load_tests.gpu.figure import Bench, Case, Cases, Record

MODULES = {
    "limits": "limits",
    "correctness": "correctness",
    "kernels": "kernels",
    "tuning": "sweep",
    "engine": "serving",
    "peers": "peers",
}
BROKEN = 3
"""Exit status after an error that leaves the card's context unusable; the cases that follow want a new process."""


def work_through(section: str, path: Path, bench: Bench, deadline: float) -> int:
    """Runs the cases of ``section`` that ``path`` has no record of, until ``deadline`` of time.time; the exit status.
    Every record is written as soon as it is there."""
    run: Cases = import_module(f"load_tests.gpu.{MODULES[section]}").cases
    done = {record.case for record in report.read(path)}
    torch.manual_seed(0)
    for case in run(bench):
        if case.name in done:
            continue
        if time.time() > deadline:
            report.append(path, Record(section, case.name, 0.0, error="left out: no time was left"))
            continue
        record = _record(section, case)
        report.append(path, record)
        print(f"{section}: {case.name} ({record.seconds:.1f} s)", flush=True)
        for figure in record.figures:
            print(report.line(figure), flush=True)
        if record.error:
            print(f"  FAILED: {record.error}", flush=True)
            if "CUDA error" in record.error:
                return BROKEN
        gc.collect()
        if bench.device.type == "cuda":
            torch.cuda.empty_cache()
    return 0


def _record(section: str, case: Case) -> Record:
    began = time.perf_counter()
    try:
        with torch.inference_mode():
            figures = tuple(case.run())
            if torch.cuda.is_available():
                torch.cuda.synchronize()
    except Exception:  # noqa: BLE001 - what fails is what we want to know, and the next case may not
        told = traceback.format_exc()
        return Record(section, case.name, time.perf_counter() - began, error=told[-3000:])
    return Record(section, case.name, time.perf_counter() - began, figures)
