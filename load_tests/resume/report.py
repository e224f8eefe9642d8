"""The figures of the bench of resumed streams. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from load_tests.chaos.transcript import Transcript, difference
from load_tests.generator.stats import Summary
from load_tests.resume.client import CutStream

NOT_FOUND, GONE = 404, 410


@dataclass(slots=True)
class Wave:
    """What came of the streams of one wave. ``led`` are the requests that each router has got while streams were
    resumed: that which had begun them, and the other one. ``foreign`` are the statuses that another key got, and
    ``late`` those of the owner after the window."""

    streams: Sequence[CutStream]
    expected: Sequence[Transcript]
    led: tuple[int, int] = (0, 0)
    foreign: list[int] = field(default_factory=list)
    late: list[int] = field(default_factory=list)


def report(waves: Sequence[Wave]) -> dict[str, Any]:
    """Returns the figures of all waves."""
    pairs = [pair for wave in waves for pair in zip(wave.streams, wave.expected, strict=True)]
    problems = [f"{each.request.kind}: {each.transcript.problem}" for each, _ in pairs if each.transcript.problem]
    found = ((each, difference(expected, each.transcript)) for each, expected in pairs if not each.transcript.problem)
    differences = [f"{each.request.kind}, cut after {each.after}: {said}" for each, said in found if said is not None]
    waits = Summary.of(each.waited_s for each, _ in pairs if each.waited_s is not None)
    return {
        "streams": len(pairs),
        "resumed": waits.count,
        "led_to_first_router": sum(wave.led[0] for wave in waves),
        "led_to_other_router": sum(wave.led[1] for wave in waves),
        "failed": len(problems),
        "different": len(differences),
        "events_before_cut": _spread([each.after for each, _ in pairs]),
        "wait_ms": {"p50": round(1000 * waits.p50, 1), "p99": round(1000 * waits.p99, 1)},
        "foreign_statuses": _counted(status for wave in waves for status in wave.foreign),
        "late_statuses": _counted(status for wave in waves for status in wave.late),
        "kinds": dict(Counter(each.request.kind for each, _ in pairs)),
        "examples": [*problems[:3], *differences[:3]],
    }


def clean(figures: Mapping[str, Any]) -> bool:
    """Returns whether each stream was resumed on the other router with the same text, and other keys were refused."""
    streams = figures["streams"]
    return bool(
        figures["failed"] == figures["different"] == figures["led_to_first_router"] == 0
        and figures["resumed"] == figures["led_to_other_router"] == streams
        and figures["foreign_statuses"] == {str(NOT_FOUND): streams}
        and figures["late_statuses"] == {str(GONE): streams}
    )


def _counted(statuses: Any) -> dict[str, int]:
    return dict(Counter(map(str, statuses)))


def _spread(counts: Sequence[int]) -> dict[str, int]:
    return {"min": min(counts), "max": max(counts), "different": len(set(counts))}
