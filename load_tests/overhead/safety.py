"""``python -m load_tests.overhead.safety``: what the checks of dev.yaml cost the graph, in pairs of runs with and
without them."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from load_tests.generator.answer import Answer
from load_tests.generator.report import Report
from load_tests.generator.session import Session
from load_tests.overhead.__main__ import loaded
from load_tests.overhead.pairs import interval, order, ratio
from load_tests.overhead.paused_server import paused, running
from load_tests.overhead.process_groups import GROUPS, GroupMeter
from load_tests.overhead.server import Server, stub_server

DESCRIPTION = """\
Measure what checks cost. Starts the graph of `make bench` twice: with all checks of dev.yaml and without any. Loads
them in turn, in pairs of short runs whose order alternates (ABBA). All processes of the one that is not loaded are
stopped meanwhile, so that it costs the other nothing. Prints the tokens per second with checks over those without, with
the 95 % interval of the pairs, and the CPU time of each group of processes. Answers are random words, none of which a
check has read before; with --equal all answers are equal, and most scores are remembered. Tokens per second are those
that come while all streams are under way: from a second after the first request until the last one is sent.
"""
WARM_UP_S = 1.0


@dataclass(frozen=True, slots=True)
class Half:
    """One run. ``cpu_s`` has the CPU seconds by group of processes; the generator's count as one. ``problems`` counts
    the answers that were not good, by what was wrong."""

    tokens: int
    tokens_per_s: float
    ttft_p50_ms: float
    ttft_p99_ms: float
    cpu_s: Mapping[str, float]
    problems: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, session: Session, seconds: float, groups: Mapping[str, float]) -> Half:
        """Returns the figures of a run of WARM_UP_S and ``seconds``."""
        report = session.report
        rate = tokens_per_s(session.answers, session.start + WARM_UP_S, seconds)
        times = 1000 * report.ttft.p50, 1000 * report.ttft.p99
        return cls(report.tokens, rate, *times, {**groups, "generator": report.generator_cpu_s}, report.problems)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two runs right after one another."""

    checked: Half
    free: Half


def main(arguments: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(arguments)
    common: dict[str, Any] = {"varied": not options.equal}
    step_s = options.step_ms / 1000
    pairs, clean = [], True
    with (
        stub_server(step_s, safety=True, **common) as checked,
        paused(checked),
        stub_server(step_s, **common) as free,
        paused(free),
    ):
        for server in (checked, free):
            _run(server, options)  # not counted: what is loaded and remembered once
        for turn in range(options.pairs):
            halves: dict[str, Half] = {}
            for name, server in order(turn, ("checked", checked), ("free", free)):
                report, half = _run(server, options)
                halves[name], clean = half, clean and report.clean
            pairs.append(Pair(**halves))
            print(f"pair {turn + 1} of {options.pairs}: {throughput_ratio(pairs[-1:]):.3f}", file=sys.stderr)
    print(summary(pairs))
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        document = {
            "streams": options.streams,
            "duration_s": options.duration,
            "pairs": [asdict(each) for each in pairs],
        }
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 0 if clean else 1


def tokens_per_s(answers: Iterable[Answer], start: float, seconds: float) -> float:
    """Returns the tokens per second that came in ``seconds`` from ``start`` on, in good answers; the tokens of an
    answer are spread evenly over its frames. Before, the streams begin all at once; after it, fewer are left."""
    good = [answer for answer in answers if answer.problem is None and answer.times]
    frames = ((time, answer.tokens / len(answer.times)) for answer in good for time in answer.times)
    return sum(tokens for time, tokens in frames if 0 <= time - start < seconds) / seconds


def rates(pairs: Sequence[Pair]) -> list[tuple[float, float]]:
    """Returns the tokens per second of each pair, with checks and without."""
    return [(pair.checked.tokens_per_s, pair.free.tokens_per_s) for pair in pairs]


def throughput_ratio(pairs: Sequence[Pair]) -> float:
    """Returns the tokens per second with checks over those without."""
    return ratio(rates(pairs))


def cpu_per_1000_tokens(halves: Sequence[Half], group: str) -> float:
    """Returns the CPU seconds of a group of processes for 1,000 tokens of all ``halves``."""
    return 1000 * sum(half.cpu_s[group] for half in halves) / max(1, sum(half.tokens for half in halves))


def summary(pairs: Sequence[Pair]) -> str:
    """Returns the figures of all pairs, for a terminal."""
    low, high = interval(rates(pairs))
    sides = {"with checks": [pair.checked for pair in pairs], "without": [pair.free for pair in pairs]}
    heads = ["tokens/s", "TTFT p50", "TTFT p99", "server", *GROUPS, "generator"]
    spread = f"95 %: {low:.3f} to {high:.3f}, {len(pairs)} pairs"
    lines = [
        f"tokens/s with checks / without: {throughput_ratio(pairs):.3f} ({spread})",
        "Means of all runs; TTFT in ms; CPU seconds for 1,000 tokens:",
        f"{'':12}" + "".join(f"{head:>11}" for head in heads),
    ]
    for name, halves in sides.items():
        count = len(halves)
        first = [
            sum(half.tokens_per_s for half in halves) / count,
            sum(half.ttft_p50_ms for half in halves) / count,
            sum(half.ttft_p99_ms for half in halves) / count,
        ]
        cpu = [cpu_per_1000_tokens(halves, group) for group in (*GROUPS, "generator")]
        lines.append(
            f"{name:12}"
            + "".join(f"{value:>11,.1f}" for value in first)
            + "".join(f"{value:>11.3f}" for value in (sum(cpu[:-1]), *cpu))
        )
    for name, halves in sides.items():
        problems = sum((Counter(half.problems) for half in halves), Counter[str]())
        lines += [f"FAILED {name}: {problem}, {count}" for problem, count in problems.most_common()]
    return "\n".join(lines)


def _run(server: Server, options: argparse.Namespace) -> tuple[Report, Half]:
    with running(server):
        meter = GroupMeter(server.pids)
        session = loaded(server, options.streams, WARM_UP_S + options.duration, options, options.key)
        return session.report, Half.of(session, options.duration, meter.seconds())


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m load_tests.overhead.safety",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--streams", type=int, default=32, help="at a time (default: %(default)s)")
    add("--pairs", type=int, default=10, help="of runs (default: %(default)s)")
    add("--duration", type=float, default=4.0, help="seconds of each run that count (default: %(default)s)")
    add("--max-tokens", type=int, default=64, help="per answer (default: %(default)s)")
    add("--step-ms", type=float, default=10.0, help="step of the stub engine (default: %(default)s)")
    add("--equal", action="store_true", help="equal answers")
    add("--key", default="sk-manta-dev", help="API key (default: the one of dev.yaml)")
    add("--json", type=Path, metavar="OUT", help="write the figures")
    return parser


if __name__ == "__main__":
    sys.exit(main())
