"""``python -m load_tests.simulation.compare_placements``: replays a trace under each placement, with fixed replicas."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from cluster.config import PlacementConfig
from load_tests.simulation.placement import PEERS, PREDICTED
from load_tests.simulation.policies.fixed import FixedPolicy
from load_tests.simulation.profile import DEFAULT_PROFILE, PROFILES
from load_tests.simulation.simulation import Outcome, Settings, Simulation
from load_tests.simulation.trace import Trace, TraceError, cut, read_trace, scaled

DESCRIPTION = f"""\
Replay a trace with prefixes (Mooncake's) against a fixed number of replicas under each placement: {PREDICTED}
(cluster/lanes/replica_choice.py, as in the cluster), and {", ".join(PEERS)}.

Peers know the load of every replica at once. --routers and --report let {PREDICTED} know it as routers do: each gets a
report every so many seconds, and adds the requests that it has sent since.
"""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One run. TTFTs of the requests that were served, in seconds."""

    placement: str
    requests: int
    ttft_p50_s: float
    ttft_p90_s: float
    ttft_p99_s: float
    hit_rate: float  # the part of prompt tokens that was in a prefix cache
    unserved: int  # refused, or without a first token an hour after the end of the trace
    median_error: float | None  # of predicted TTFTs, as a share of the measured ones


def comparison(name: str, outcome: Outcome) -> Comparison:
    """Returns the figures of a run."""
    ttft = outcome.first - outcome.trace.arrival
    p50, p90, p99 = (float(each) for each in np.nanpercentile(ttft, (50, 90, 99)))
    error = None
    if outcome.predictions:
        predicted, measured = np.array(outcome.predictions).T
        error = float(np.median(np.abs(predicted - measured) / np.maximum(measured, 1e-9)))
    return Comparison(name, len(ttft), p50, p90, p99, outcome.hit_rate, int(np.isnan(ttft).sum()), error)


def compare(trace: Trace, settings: Settings, routers: int, report_s: float) -> list[Comparison]:
    """Runs every placement, and the cluster's once more with ``routers`` and reports every ``report_s`` seconds if
    those differ from one router that knows everything."""
    cases = {name: replace(settings, placement=name) for name in (*PEERS, PREDICTED)}
    if routers > 1 or report_s > 0:
        name = f"{PREDICTED}, {routers} routers, {report_s:g} s"
        cases[name] = replace(settings, routers=routers, report_s=report_s)
    count = settings.replicas_start
    return [
        comparison(name, Simulation(trace, FixedPolicy([(0.0, count)]), case).run()) for name, case in cases.items()
    ]


def table(rows: Sequence[Comparison]) -> str:
    """Returns a line for each run."""
    lines = [f"{'placement':<36} {'TTFT p50':>9} {'p90':>9} {'p99':>9} {'hit rate':>9} {'unserved':>8} {'error':>7}"]
    for row in rows:
        error = "" if row.median_error is None else f"{row.median_error:.1%}"
        lines.append(
            f"{row.placement:<36} {row.ttft_p50_s:>7.2f} s {row.ttft_p90_s:>7.2f} s {row.ttft_p99_s:>7.2f} s "
            f"{row.hit_rate:>9.1%} {row.unserved:>8} {error:>7}"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table. Returns the exit code: 2 if the file is no trace."""
    parser = argparse.ArgumentParser(
        prog="python -m load_tests.simulation.compare_placements",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--trace", type=Path, required=True, metavar="FILE")
    add("--replicas", type=int, default=8, metavar="N", help="8")
    add("--profile", choices=PROFILES, default=DEFAULT_PROFILE, help=DEFAULT_PROFILE, metavar="NAME")
    add("--duration", type=float, metavar="S", help="the first part of the trace; all of it")
    add("--scale", type=float, default=1.0, metavar="X", help="times the request rate; 1")
    add("--routers", type=int, default=4, metavar="N", help="4")
    add("--report", type=float, default=0.5, metavar="S", help="0.5, a heartbeat")
    add("--affinity-weight", type=float, default=PlacementConfig().affinity_weight, metavar="W", help="the cluster's")
    add("--seed", type=int, default=0, metavar="N", help="0")
    add("--json", type=Path, metavar="FILE", help="write the figures")
    options = parser.parse_args(arguments)
    if options.replicas < 1 or options.routers < 1 or min(options.report, options.affinity_weight, options.seed) < 0:
        parser.error("--replicas and --routers are at least 1; --report, --affinity-weight and --seed not negative")
    try:
        trace = read_trace(options.trace)
    except (TraceError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    trace = scaled(trace if options.duration is None else cut(trace, options.duration), options.scale, options.seed)
    settings = Settings(
        PROFILES[options.profile],
        replicas_start=options.replicas,
        replicas_max=options.replicas,
        affinity_weight=options.affinity_weight,
        seed=options.seed,
    )
    rows = compare(trace, settings, options.routers, options.report)
    print(table(rows))
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
