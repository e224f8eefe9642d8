"""Measures Manta on one card: right or wrong, how fast, and what part of what the card can do.

    python load_tests/gpu/run.py --out DIR

For a machine with one H100 or H200, torch, triton and transformers; takes 16 minutes at most. Its sections, one after
the other, each within a time of its own and in a process of its own:

  limits       copy bandwidth and bfloat16 products: all figures are told as a part of these
  correctness  every kernel against its definition in float64, in real sizes
  kernels      attention, rows, products, sampling, experts: times, bytes, operations; torch's attention beside them
  tuning       shapes of the attention kernels, the best of each load
  engine       8B models with random weights: time per token, tokens a second, what graphs and looking ahead are worth
  peers        the same requests on transformers' continuous batching

Where a command may not run for so long: --sections limits,correctness,kernels takes 7 minutes at most, and
--sections limits,tuning,engine,peers 10, each with a DIR of its own.

What fails or runs out of time is recorded with its error, and the rest goes on. DIR gets results.json, results.md,
results.png where matplotlib is there, and a file of lines for each section as it runs. Exits with 0 when no case
failed and nothing was wrong, 1 otherwise, 2 where there is no card. --dry runs all of it in tiny sizes on a CPU, in
Triton's interpreter: its times mean nothing.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUDGETS = {"limits": 25.0, "correctness": 210.0, "kernels": 160.0, "tuning": 280.0, "engine": 210.0, "peers": 50.0}
"""Seconds of each section, its process's start included; 935 in all."""
GRACE_S = 5.0  # between the moment after which no case is begun, and the end of the process
MAX_STARTS = 4  # of a section whose cases break the card's context


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="directory of the results; made if it is not there")
    parser.add_argument("--sections", default=",".join(BUDGETS), help="those wanted, with commas between them")
    parser.add_argument("--dry", action="store_true", help="tiny sizes on a CPU, in Triton's interpreter")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the time of every section")
    parser.add_argument("--only", help=argparse.SUPPRESS)  # this process is the one of that section
    parser.add_argument("--deadline", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.wanted = [name for name in options.sections.split(",") if name]
    unknown = set(options.wanted) - set(BUDGETS)
    if unknown:
        parser.error(f"no section {', '.join(sorted(unknown))}; there are {', '.join(BUDGETS)}")
    return options


def supervised(options: argparse.Namespace, section: str) -> str:
    """Runs the process of ``section``, anew if it broke; why it did not come to its end, or nothing."""
    from load_tests.gpu.section import BROKEN

    budget = BUDGETS[section] * options.scale
    end = time.time() + budget
    status: int | None = BROKEN
    for _ in range(MAX_STARTS):
        command = [sys.executable, str(Path(__file__).resolve()), "--out", str(options.out), "--only", section]
        command += ["--deadline", str(end - GRACE_S)] + (["--dry"] if options.dry else [])
        process = subprocess.Popen(command, cwd=ROOT)
        try:
            status = process.wait(max(1.0, end - time.time()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return f"stopped after {budget:.0f} s, within the case that follows the last one above"
        if status != BROKEN:
            break
    return "" if status == 0 else f"its process ended with {status}"


def main() -> int:
    """The exit status."""
    options = parsed()
    if options.dry:
        os.environ["TRITON_INTERPRET"] = "1"
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    import torch

    if not options.dry and not torch.cuda.is_available():
        print("There is no card here that torch can use. --dry runs everything on the CPU, in tiny sizes.")
        return 2
    options.out = options.out.resolve()
    options.out.mkdir(parents=True, exist_ok=True)
    return _section(options) if options.only else _all(options)


def _section(options: argparse.Namespace) -> int:
    import torch

    from load_tests.gpu import report
    from load_tests.gpu.figure import Bench
    from load_tests.gpu.section import work_through

    device = torch.device("cpu" if options.dry else "cuda:0")
    limits = report.limits_of(report.read(options.out / "limits.jsonl"))
    bench = Bench(device, options.dry, limits)
    with ExitStack() as stack:
        if options.dry:
            from load_tests.gpu.interpreter import quick_interpreter

            torch.set_num_threads(1)
            stack.enter_context(quick_interpreter())
        return work_through(options.only, options.out / f"{options.only}.jsonl", bench, options.deadline)


def _all(options: argparse.Namespace) -> int:
    from load_tests.gpu import report
    from load_tests.gpu.figure import Record

    records: list[Record] = []
    about: dict[str, object] = {"dry run": options.dry}
    began = time.perf_counter()
    for path in options.out.glob("*.jsonl"):
        if path.stem in BUDGETS:
            path.unlink()  # figures of one run never stand beside limits of another
    for section in options.wanted:
        print(f"== {section}: {BUDGETS[section] * options.scale:.0f} s at most", flush=True)
        start = time.perf_counter()
        fault = supervised(options, section)
        records += report.read(options.out / f"{section}.jsonl")
        if fault:
            records.append(Record(section, "the section", time.perf_counter() - start, error=fault))
            print(f"  FAILED: {fault}", flush=True)
        about[f"seconds of {section}"] = round(time.perf_counter() - start, 1)
        report.write(options.out, records, about)
    about["seconds"] = round(time.perf_counter() - began, 1)
    report.write(options.out, records, about)
    failed = sum(bool(record.error) for record in records)
    wrong = [each.name for record in records for each in record.figures if each.good is False]
    print(f"{len(records)} cases, {failed} failed, {len(wrong)} targets missed, {about['seconds']} s")
    print(f"results in {options.out / 'results.md'}")
    incorrect = any(each.good is False for r in records if r.section == "correctness" for each in r.figures)
    return 1 if failed or incorrect else 0


if __name__ == "__main__":
    # As a script its folder is searched first for modules; names there are not meant for others.
    if Path(sys.path[0] or ".").resolve() == ROOT / "load_tests" / "gpu":
        sys.path[0] = str(ROOT)
    sys.exit(main())
