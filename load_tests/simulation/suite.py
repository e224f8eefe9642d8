"""``python -m load_tests.simulation.suite``: all traces under all policies and the oracle. A table and a picture."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from tqdm import tqdm

from load_tests.simulation.measures import measure
from load_tests.simulation.oracle import OracleSearch, at_once
from load_tests.simulation.plot import COLORS, FAINT, INK
from load_tests.simulation.policies.catalog import POLICIES
from load_tests.simulation.profile import PROFILES
from load_tests.simulation.simulation import Settings, Simulation
from load_tests.simulation.synthetic import synthetic
from load_tests.simulation.tier import Tier
from load_tests.simulation.trace import Trace, cut, read_trace, scaled

ORACLE_RUNS = 12
PROFILE = "70b-h200"
COLD_START_S = 60.0
FILES = {"azure": "azure_llm_2023_conv.csv.gz", "mooncake": "mooncake_conversation.jsonl.gz"}


@dataclass(frozen=True, slots=True)
class Case:
    """One trace: ``amount`` is the mean rate in requests/s of a synthetic one, and the factor of the rate of a file."""

    name: str
    amount: float
    duration_s: float

    def trace(self, directory: Path, seed: int) -> Trace:
        """Returns the trace. Raises OSError and TraceError for a file that cannot be read."""
        if self.name in FILES:
            return scaled(cut(read_trace(directory / FILES[self.name]), self.duration_s), self.amount, seed)
        return synthetic(self.name, self.amount, self.duration_s, seed)


CASES = (
    Case("azure", 5.0, 1800.0),
    Case("mooncake", 2.0, 1800.0),
    Case("steady", 30.0, 900.0),
    Case("ramp", 30.0, 1800.0),
    Case("daily", 20.0, 3600.0),
    Case("regime", 20.0, 1800.0),
    Case("square", 30.0, 2400.0),
    Case("flash", 30.0, 1800.0),
)
"""Sizes of 3 to 20 replicas, with which a case takes two or three minutes of one core."""


def run_case(case: Case, directory: Path, seed: int, oracle_runs: int, policies: Sequence[str]) -> dict[str, Any]:
    """Returns the measures of a case by policy, as a JSON object. ``admitted`` is Manta's policy behind the router's
    admission, ``at once`` one that knows the load when it arrives (``oracle.at_once``), behind the same."""
    trace = case.trace(directory, seed)
    settings = Settings(PROFILES[PROFILE], cold_start_s=COLD_START_S, seed=seed)
    tier = Tier.of(trace, settings)
    settings = replace(settings, replicas_start=tier.start_replicas(trace))
    found: dict[str, Any] = {}
    admitted = replace(settings, admission=True)
    runs = {name: (POLICIES[name](tier), settings) for name in policies}
    if "manta" in policies:
        runs |= {"admitted": (POLICIES["manta"](tier), admitted)}
        runs |= {"at once": (at_once(trace, settings, tier.capacity_rps), admitted)}
    with tqdm(desc=case.name, total=len(runs) + oracle_runs, leave=False) as bar:
        for name, (policy, chosen) in runs.items():
            began = time.perf_counter()
            found[name] = asdict(measure(Simulation(trace, policy, chosen).run()))
            found[name]["wall_s"] = time.perf_counter() - began
            bar.update()
        if oracle_runs:
            best = OracleSearch(
                trace, settings, progress=lambda done, total: bar.update() and None, runs=oracle_runs
            ).run()
            found["oracle"] = None if best is None else asdict(best.measures)
    return {"case": asdict(case), "seed": seed, "profile": PROFILE, "cold_start_s": COLD_START_S, "runs": found}


def rows(results: Sequence[Mapping[str, Any]]) -> str:
    """Returns the table: attainment, and GPU-hours as multiples of the oracle's."""
    names = ["admitted", "at once", *POLICIES]
    lines = ["| trace | requests | oracle, GPU-hours | " + " | ".join(names) + " |", "| --- " * (3 + len(names)) + "|"]
    for result in results:
        runs, oracle = result["runs"], result["runs"].get("oracle")
        unit, sign = (oracle["gpu_hours"], "") if oracle else (1.0, " h")
        cells = [
            f"{run['attainment']:.2%}, {run['gpu_hours'] / unit:.2f}{sign}" if (run := runs.get(name)) else ""
            for name in names
        ]
        best = f"{oracle['gpu_hours']:.2f}" if oracle else "none found"
        lines.append(f"| {result['case']['name']} | {runs['manta']['requests']:,} | {best} | {' | '.join(cells)} |")
    return "\n".join(lines)


def pareto(results: Sequence[Mapping[str, Any]]) -> Figure:
    """Returns a panel for each trace: the part not in time by GPU-hours as multiples of the oracle's."""
    columns = 4
    height = -(-len(results) // columns)
    figure = Figure(figsize=(12.0, 3.0 * height), dpi=110, layout="constrained")
    panels = figure.subplots(height, columns, squeeze=False, sharey=True).ravel()
    for axes in panels[len(results) :]:
        axes.set_visible(False)
    for axes, result in zip(panels, results, strict=False):
        runs = {name: run for name, run in result["runs"].items() if run is not None}
        unit = runs["oracle"]["gpu_hours"] if "oracle" in runs else 1.0
        for name, run in runs.items():
            at = run["gpu_hours"] / unit, max(100 * (1 - run["attainment"]), 0.01)
            axes.scatter(*at, color=COLORS.get(name, "#777777"), s=30, zorder=3)
            axes.annotate(name, at, xytext=(4, 3), textcoords="offset points", fontsize=7)
        axes.axhline(1.0, color=INK, linewidth=0.8, linestyle="--")
        axes.set_yscale("log")
        axes.set_title(result["case"]["name"], fontsize=9, color=INK, loc="left")
        axes.set_xlabel("GPU-hours by the oracle's", fontsize=8)
        axes.grid(color=FAINT, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=7)
    for axes in panels[::columns]:
        axes.set_ylabel("not in time, %", fontsize=8)
    return figure


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the cases, or reports on those that were run. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m load_tests.simulation.suite", description=__doc__)
    parser.add_argument(
        "--traces", type=Path, required=True, metavar="DIR", help="with the files of Azure and Mooncake"
    )
    parser.add_argument("--results", type=Path, required=True, metavar="FILE", help="JSON, to which cases are added")
    parser.add_argument("--only", nargs="*", metavar="NAME", help="these cases; without names none, but the report")
    parser.add_argument("--policy", nargs="*", default=list(POLICIES), choices=list(POLICIES), help="these policies")
    parser.add_argument("--oracle-runs", type=int, default=ORACLE_RUNS, metavar="N", help="0: keep the oracle's result")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="the Pareto plot (.svg, .png)")
    options = parser.parse_args(arguments)
    kept: dict[str, Any] = json.loads(options.results.read_text()) if options.results.exists() else {}
    for case in CASES:
        if options.only is None or case.name in options.only:
            result = run_case(case, options.traces, options.seed, options.oracle_runs, options.policy)
            before = kept.get(case.name, {"runs": {}})["runs"]
            kept[case.name] = {**result, "runs": {**before, **result["runs"]}}
            options.results.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    results = [kept[case.name] for case in CASES if case.name in kept]
    print(rows(results))
    if options.plot is not None:
        pareto(results).savefig(options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
