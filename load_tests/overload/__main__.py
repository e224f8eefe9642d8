"""``python -m load_tests.overload``: what is answered in time at 0.5 to 10 times the capacity, with and without
admission, and what other tenants notice of one that sends a hundred times its share."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from load_tests.overload.p99_ratio import describe, p99_ratio
from load_tests.overload.plot import draw
from load_tests.overload.server import ROWS, router_config, serving
from load_tests.overload.simulation import Simulation
from load_tests.overload.traffic import NOISY, TENANTS, Offered, mixed
from load_tests.overload.trial import Figures, Outcome, figures_of, offer, percentile
from load_tests.simulation.profile import DEFAULT_PROFILE, PROFILES

DESCRIPTION = """\
Offer an open loop of mixed classes and lengths to the router's application over a real engine (tier fast), at
multiples of the capacity, which is measured first. Goodput is the answers per second whose first token was within the
objective of their class.

Router, engine and load generator share the cores of this machine. With --stretched the forward passes of the engine
sleep until they have taken as long as those of a larger model on an accelerator, which leaves a core to the router, as
there. So admission, fairness and scheduling are what is measured. Their capacity grows with --rows.
"""
ALONE, WITH, WITHOUT = "alone", "with admission", "without"
WAITS = "waits_s"
QUIET = TENANTS[:3]
SIMULATED_CAPACITY = 6.5
"""Requests per second that the simulated tier serves."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = make_parser()
    options = parser.parse_args(arguments)
    if options.simulated and options.stretched:
        parser.error("--stretched is for the engine of a server, and --simulated has none")
    capacity = options.capacity or (SIMULATED_CAPACITY if options.simulated else measured_capacity(options))
    print(f"capacity {capacity:.1f} requests/s")
    found: dict[str, Any] = {name: getattr(options, name) for name in ("seconds", "rows", "stretched", "seed")}
    found["capacity"] = capacity
    if options.tenant:
        found["tenant"] = neighbours(capacity, options)
        for name, row in found["tenant"].items():
            print(f"{name:32} { ({key: value for key, value in row.items() if key != WAITS}) }")
        ratio = p99_ratio(found["tenant"][ALONE][WAITS], found["tenant"][WITH][WAITS])
        found["times"] = ratio.json()
        print(describe(ratio))
    else:
        names = {"on": [WITH], "off": [WITHOUT], "both": [WITH, WITHOUT]}[options.admission]
        measure = simulated if options.simulated else sweep
        runs = {name: list(measure(name == WITH, capacity, options)) for name in names}
        found["runs"] = {
            name: [{"times": times, **figures.json()} for times, figures in rows] for name, rows in runs.items()
        }
        if options.plot is not None:
            draw(runs, options.plot)
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m load_tests.overload", description=DESCRIPTION)
    add = parser.add_argument
    add("--times", type=float, nargs="+", default=[0.5, 1, 1.5, 2, 5, 10], help="offered loads, in capacities")
    add("--seconds", type=float, default=60.0, help="of each load (default: %(default)s)")
    add("--capacity", type=float, help="requests/s that count as capacity, instead of measuring it")
    add("--rows", type=int, default=ROWS, help="sequences that the engine runs at once (default: %(default)s)")
    add(
        "--stretched",
        nargs="?",
        const=DEFAULT_PROFILE,
        choices=PROFILES,
        metavar="PROFILE",
        help=f"forward passes take as long as those of a replica: {', '.join(PROFILES)} (alone: %(const)s)",
    )
    add("--give-up", type=float, default=90.0, help="seconds after which a client leaves (default: %(default)s)")
    add("--seed", type=int, default=0)
    add("--admission", choices=("on", "off", "both"), default="both", help="(default: %(default)s)")
    add("--simulated", action="store_true", help="the scheduler alone, on a virtual clock, instead of a server")
    add("--tenant", action="store_true", help="one tenant that sends 100 x its share, beside three others")
    add("--json", type=Path, metavar="OUT", help="write the figures")
    add("--plot", type=Path, metavar="OUT.png", help="draw goodput against the offered load")
    add("--no-progress", dest="progress", action="store_false", help="show no progress bar")
    return parser


def measured_capacity(options: argparse.Namespace) -> float:
    """Returns the requests per second that are answered whole while more than enough are offered."""
    length = min(options.seconds, 15.0)
    requests = list(mixed(60.0, length, seed=1))
    ends: list[float] = []
    with serving(admission=True, rows=options.rows, stretched=options.stretched) as url:
        began = time.perf_counter()
        outcomes = asyncio.run(offer(url, requests, lambda outcome: ends.append(time.perf_counter() - began)))
    answered = sum(one.ttft_s is not None and not one.problem for one in outcomes)
    return answered / max(ends)


def sweep(admission: bool, capacity: float, options: argparse.Namespace) -> Iterator[tuple[float, Figures]]:
    """Yields the figures at each load, each on a server of its own, and prints them."""
    for times in options.times:
        requests = list(mixed(times * capacity, options.seconds, options.seed))
        with serving(admission=admission, rows=options.rows, stretched=options.stretched) as url:
            outcomes = run(url, requests, f"{times:g} x", options)
        figures = figures_of(outcomes, options.seconds)
        print(row(WITH if admission else WITHOUT, times, figures), flush=True)
        yield times, figures


def simulated(admission: bool, capacity: float, options: argparse.Namespace) -> Iterator[tuple[float, Figures]]:
    """Yields the figures of a simulated tier at each load, and prints them."""
    config = router_config(admission=True).admission if admission else None
    for times in options.times:
        requests = list(mixed(times * capacity, options.seconds, options.seed))
        with progress(len(requests), f"{times:g} x", show=options.progress) as advance:
            arrivals = Simulation(config).run(requests, on_end=advance)
        figures = figures_of([one.outcome for one in arrivals], options.seconds)
        print(row(WITH if admission else WITHOUT, times, figures), flush=True)
        yield times, figures


def neighbours(capacity: float, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Returns the first tokens of three tenants alone, and beside one that sends a hundred times its share, where a
    tenant's share is a quarter of half the capacity."""
    share = capacity / 8
    quiet = list(mixed(3 * share, options.seconds, options.seed, QUIET))
    noise = list(mixed(100 * share, options.seconds, options.seed + 1, (NOISY,)))
    beside = sorted([*quiet, *noise], key=lambda one: one.at)
    found = {}
    for name, requests, admission in ((ALONE, quiet, True), (WITH, beside, True), (WITHOUT, beside, False)):
        if options.admission == "on" and not admission:
            continue
        outcomes = [one for one in outcomes_of(admission, requests, name, options) if one.offered.tenant != NOISY]
        waits = [one.ttft_s for one in outcomes if one.ttft_s is not None]
        refused = sum(one.refused_s is not None for one in outcomes)
        found[name] = {
            "p50_s": percentile(waits, 0.5),
            "p99_s": percentile(waits, 0.99),
            "interactive_p99_s": percentile(
                [
                    one.ttft_s
                    for one in outcomes
                    if one.ttft_s is not None and one.offered.traffic.name == "interactive"
                ],
                0.99,
            ),
            "requests": len(outcomes),
            "refused": refused,
            WAITS: [round(wait, 4) for wait in waits],
        }
    return found


def outcomes_of(admission: bool, requests: Sequence[Offered], name: str, options: argparse.Namespace) -> list[Outcome]:
    """Returns what becomes of one load, simulated or on a server of its own."""
    if options.simulated:
        config = router_config(admission=True).admission if admission else None
        return [one.outcome for one in Simulation(config).run(requests)]
    with serving(admission=admission, rows=options.rows, stretched=options.stretched) as url:
        return run(url, requests, name, options)


def run(url: str, requests: Sequence[Offered], name: str, options: argparse.Namespace) -> list[Outcome]:
    """Offers one load, with a progress bar."""
    with progress(len(requests), name, show=options.progress) as advance:
        return asyncio.run(offer(url, requests, lambda outcome: advance(), options.give_up))


@contextmanager
def progress(total: int, name: str, *, show: bool) -> Iterator[Callable[[], None]]:
    with tqdm(total=total, unit="requests", desc=name, disable=not (show and sys.stderr.isatty())) as bar:

        def advance() -> None:
            bar.update(1)

        yield advance


def row(name: str, times: float, figures: Figures) -> str:
    """Returns one line of the table."""
    classes = ", ".join(f"{each} {rate:.1f}" for each, rate in figures.goodput_by_class.items())
    waits = ", ".join("-" if each is None else f"{each:.2f}" for each in figures.ttft_p99_by_class.values())
    quick = "-" if figures.refusal_p99_s is None else f"{1000 * figures.refusal_p99_s:.0f} ms"
    return (
        f"{name:15} {times:5.1f} x  offered {figures.offered:6.1f}/s  goodput {figures.goodput:5.1f}/s ({classes})  "
        f"P99 TTFT {waits} s  refused {figures.refused} (P99 {quick}, late {figures.refused_late})  "
        f"failed {figures.failed}"
    )


if __name__ == "__main__":
    sys.exit(main())
