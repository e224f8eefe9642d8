"""``python -m load_tests.simulation``: replays a trace against a scaled tier, under Manta's policy and its peers."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from load_tests.simulation.fluid import simulate_fluid
from load_tests.simulation.measures import measure
from load_tests.simulation.observation import Policy
from load_tests.simulation.oracle import Best, OracleSearch
from load_tests.simulation.plot import Run, draw, write
from load_tests.simulation.policies.catalog import POLICIES
from load_tests.simulation.policies.fixed import FixedPolicy
from load_tests.simulation.profile import DEFAULT_PROFILE, PROFILES
from load_tests.simulation.report import document, table
from load_tests.simulation.simulation import DEFAULT_SLO, Settings, Simulation
from load_tests.simulation.slo import Slo
from load_tests.simulation.synthetic import SHAPES, synthetic
from load_tests.simulation.tier import Tier
from load_tests.simulation.trace import Trace, TraceError, cut, read_trace, scaled, with_batch_share
from load_tests.simulation.workload import busy_replicas

NEED_SLOT_S = 30.0  # of the need in the picture

DESCRIPTION = """\
Replay a trace of requests against a model of a tier whose replicas an autoscaling policy starts and ends.

Traces are Azure's CSV (TIMESTAMP, ContextTokens, GeneratedTokens), Mooncake's JSON lines (timestamp, input_length,
output_length, hash_ids), both also compressed by gzip, or synthetic ones: square, ramp, daily, flash, regime, steady.

A request is in time if its first token comes within --ttft seconds, plus --ttft-per-1k-tokens for each 1,000 tokens of
its prompt, and its tokens come at most --itl seconds apart on average. "attainment" is the part of the interactive
requests that are in time; a request that is refused or never served is not. "gpu_hours" counts every replica from its
order to its end, cold start and draining included, from the start of the trace to its end.

Policies: manta (cluster/autoscaling, the same code as in the cluster), serve (Ray Serve's default by ongoing requests),
keda (HPA on queue length and KV use), kpa (Knative's concurrency with panic mode), planner (an SLA planner like
Dynamo's), static:N. The oracle knows the trace: the capacity profile with the least GPU-hours that a search finds to
keep --attainment. Peers get the targets that a load test of four replicas finds.

Replicas batch continuously, prefill in chunks, hold a KV cache and a prefix cache; placement is that of
cluster/lanes/replica_choice.py. --fluid treats the tier as one body of work, for 10,000 replicas and more.
"""

EPILOG = """\
examples:
  python -m load_tests.simulation --trace azure_llm_2023_conv.csv.gz --policy manta --replicas-max 1000
  python -m load_tests.simulation --trace mooncake_conversation.jsonl.gz --scale 20 --compare --plot run.html
  python -m load_tests.simulation --synthetic flash --rate 120 --compare --cold-start 300
  python -m load_tests.simulation --synthetic daily --rate 9000 --duration 600 --profile 8b-h100 --no-oracle
  python -m load_tests.simulation --trace azure_llm_2023_conv.csv.gz --scale 12000 --fluid --replicas-max 15000

exit codes:
  0  done
  2  cannot be run: wrong options, or a file that is no trace
"""


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parses the command line. Exits with 2 for invalid options."""
    parser = argparse.ArgumentParser(
        prog="python -m load_tests.simulation",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--trace", type=Path, metavar="FILE", help="Azure's CSV or Mooncake's JSON lines")
    source.add_argument("--synthetic", choices=SHAPES, metavar="SHAPE", help=", ".join(SHAPES))
    add = parser.add_argument
    add("--policy", default="manta", metavar="NAME", help=f"{', '.join(POLICIES)}, or static:N; manta")
    add("--compare", action="store_true", help="run all policies, in a table")
    add("--scale", type=float, default=1.0, metavar="X", help="times the request rate; 1")
    add("--rate", type=float, default=60.0, metavar="RPS", help="mean rate of a synthetic trace; 60")
    add("--duration", type=float, metavar="S", help="of a synthetic trace (3600), or the first part of a file")
    add("--profile", choices=PROFILES, default=DEFAULT_PROFILE, help=f"the replica; {DEFAULT_PROFILE}", metavar="NAME")
    add("--replicas-min", type=int, default=1, metavar="N", help="1")
    add("--replicas-max", type=int, default=1000, metavar="N", help="1000")
    add("--cold-start", type=float, default=60.0, metavar="S", help="from order to first request; 60")
    add("--failures", type=float, default=0.0, metavar="N", help="crashes of a replica in an hour; 0")
    add("--stuck", type=float, default=0.0, metavar="SHARE", help="of starts that never get ready; 0")
    add("--batch-share", type=float, default=0.0, metavar="SHARE", help="of requests that are batch work; 0")
    add("--ttft", type=float, default=DEFAULT_SLO.ttft_s, metavar="S", help=f"{DEFAULT_SLO.ttft_s:g}")
    add("--ttft-per-1k-tokens", type=float, default=1000 * DEFAULT_SLO.ttft_s_per_token, metavar="S", help="0.25")
    add("--itl", type=float, default=DEFAULT_SLO.itl_s, metavar="S", help=f"{DEFAULT_SLO.itl_s:g}")
    add("--attainment", type=float, default=0.99, metavar="SHARE", help="that the oracle keeps; 0.99")
    add("--no-oracle", dest="oracle", action="store_false", help="do not search: oracle_gpu_hours is null")
    add("--oracle-runs", type=int, metavar="N", help="simulations of the search; by the number of requests")
    add("--fluid", action="store_true", help="the fluid mode; no oracle")
    add("--seed", type=int, default=0, metavar="N", help="0")
    add("--json", type=Path, metavar="FILE", help="write the measures of all runs")
    add("--plot", type=Path, metavar="FILE", help="write a picture (.png, .svg), or a page with the table (.html)")
    add("--no-progress", dest="progress", action="store_false", help="show no progress bar")
    options = parser.parse_args(arguments)
    _check(parser, options)
    return options


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if static_count(options.policy) is None and options.policy not in POLICIES:
        parser.error(f"--policy: {options.policy!r} is not one of {', '.join(POLICIES)}, static:N")
    if not 1 <= options.replicas_min <= options.replicas_max:
        parser.error("--replicas-min is at least 1 and at most --replicas-max")
    positive = ("scale", "rate", "ttft", "itl", "cold_start")
    if wrong := [name for name in positive if not 0 < getattr(options, name) < float("inf")]:
        parser.error(f"--{wrong[0].replace('_', '-')} must be positive")
    if options.duration is not None and not 0 < options.duration < float("inf"):
        parser.error("--duration must be positive")
    if min(options.failures, options.ttft_per_1k_tokens, options.seed) < 0:
        parser.error("--failures, --ttft-per-1k-tokens and --seed are not negative")
    if not (0 <= options.stuck < 1 and 0 <= options.batch_share < 1 and 0 < options.attainment <= 1):
        parser.error("--stuck and --batch-share are from 0 to below 1, --attainment is above 0 and at most 1")
    if options.oracle_runs is not None and options.oracle_runs < 1:
        parser.error("--oracle-runs is at least 1")


def static_count(name: str) -> int | None:
    """Returns N of ``static:N``; None for another name."""
    head, _, number = name.partition(":")
    return int(number) if head == "static" and number.isdecimal() else None


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the policies and the oracle. Returns the exit code."""
    options = options_of(arguments)
    try:
        trace = trace_of(options)
    except (TraceError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    settings = settings_of(options)
    tier = Tier.of(trace, settings)
    start = static_count(options.policy) or tier.start_replicas(trace, options.scale if options.fluid else 1.0)
    settings = replace(settings, replicas_start=start)
    names = [options.policy, *(name for name in POLICIES if options.compare and name != options.policy)]
    runs: list[Run] = []
    walls: list[float] = []
    for name in names:
        begun = time.perf_counter()
        runs.append(run_policy(trace, policy_of(name, tier), settings, options))
        walls.append(time.perf_counter() - begun)
    best = None if options.fluid or not options.oracle else search(trace, settings, options)
    oracle = None if best is None else best.measures
    measured = [run.measures for run in runs]
    text = table(measured, oracle)
    print(text, file=sys.stderr)
    result = document(measured[0], oracle, walls[0], measured if options.compare else ())
    print(json.dumps(result))
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if options.plot is not None:
        drawn = runs if best is None else [*runs, Run(best.measures, best.outcome.series)]
        busy = busy_replicas(trace, settings.profile, NEED_SLOT_S) * (options.scale if options.fluid else 1.0)
        title = f"{trace.name}, {measured[0].requests:,} requests, {options.profile}"
        write(draw(title, drawn, busy, NEED_SLOT_S, trace.duration), options.plot, text)
    return 0


def trace_of(options: argparse.Namespace) -> Trace:
    """Returns the trace, cut and scaled. The fluid counts requests ``scale`` times instead of repeating them.

    Raises TraceError, OSError, and ValueError if nothing is left.
    """
    if options.synthetic is not None:
        trace = synthetic(options.synthetic, options.rate, options.duration or 3600.0, options.seed)
    else:
        trace = read_trace(options.trace)
        if options.duration is not None:
            trace = cut(trace, options.duration)
    if not options.fluid:
        trace = scaled(trace, options.scale, options.seed)
    return with_batch_share(trace, options.batch_share, options.seed) if options.batch_share else trace


def settings_of(options: argparse.Namespace) -> Settings:
    """Returns the settings that the options say."""
    return Settings(
        PROFILES[options.profile],
        Slo(options.ttft, options.itl, options.ttft_per_1k_tokens / 1000),
        replicas_min=options.replicas_min,
        replicas_max=options.replicas_max,
        cold_start_s=options.cold_start,
        failures_per_hour=options.failures,
        stuck_share=options.stuck,
        seed=options.seed,
    )


def policy_of(name: str, tier: Tier) -> Policy:
    """Returns a new policy."""
    count = static_count(name)
    return POLICIES[name](tier) if count is None else FixedPolicy([(0.0, count)], name)


def run_policy(trace: Trace, policy: Policy, settings: Settings, options: argparse.Namespace) -> Run:
    """Runs one policy, with a progress bar in simulated seconds."""
    with progress_bar(policy.name, trace.duration, options.progress) as progress:
        if options.fluid:
            flowed = simulate_fluid(trace, options.scale, policy, settings, progress)
            return Run(flowed.measures, flowed.series)
        outcome = Simulation(trace, policy, settings, progress).run()
        return Run(measure(outcome), outcome.series)


def search(trace: Trace, settings: Settings, options: argparse.Namespace) -> Best | None:
    """Searches for the oracle's profile, with a progress bar in simulations."""
    with tqdm(desc="oracle", unit=" runs", leave=False, disable=not options.progress) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        best = OracleSearch(trace, settings, options.attainment, progress, options.oracle_runs).run()
    if best is None:
        print(f"No profile of at most {settings.replicas_max} replicas keeps the objectives.", file=sys.stderr)
    return best


@contextmanager
def progress_bar(name: str, duration: float, shown: bool) -> Iterator[Callable[[float], None]]:
    """Yields what moves a bar to a simulated instant."""
    with tqdm(desc=name, total=round(duration), unit=" s", leave=False, disable=not shown) as bar:

        def move(now: float) -> None:
            bar.update(round(min(now, duration)) - bar.n)

        yield move


if __name__ == "__main__":
    sys.exit(main())
