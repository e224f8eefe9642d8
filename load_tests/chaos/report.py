"""What all repetitions together say."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from load_tests.chaos.faults import MOVING, Fault
from load_tests.chaos.trial import Trial
from load_tests.generator.stats import Summary


def report(trials: Sequence[Trial], undisturbed_s: Sequence[float] = ()) -> dict[str, Any]:
    """Returns the figures: ``streams``, ``failed`` and ``different`` of all repetitions, ``pause_ms`` with p50 and p99
    (None without any pause), ``abort_ms`` with p50 and max if routers were killed, the streams that were moved or open
    at the fault, and per kind the first fault of each sort. ``undisturbed_s`` are the longest gaps of streams without a
    fault, in seconds."""
    problems = [each for trial in trials for each in trial.problems]
    differences = [each for trial in trials for each in trial.differences]
    pauses = Summary.of(1000 * pause for trial in trials for pause in trial.pauses_s)
    undisturbed = Summary.of(1000 * pause for pause in undisturbed_s)
    aborted = [1000 * trial.aborted_s for trial in trials if trial.aborted_s is not None]
    return {
        "streams": sum(trial.streams for trial in trials),
        "failed": len(problems),
        "different": len(differences),
        "pause_ms": {"p50": _finite(pauses.p50), "p99": _finite(pauses.p99)},
        "undisturbed_pause_ms": {"p50": _finite(undisturbed.p50), "p99": _finite(undisturbed.p99)},
        **({"abort_ms": {"p50": _finite(Summary.of(aborted).p50), "max": _finite(max(aborted))}} if aborted else {}),
        "moved": sum(trial.moved for trial in trials),
        "open_at_fault": sum(trial.open_at_fault for trial in trials),
        "failed_by_kind": dict(Counter(kind for kind, _ in problems)),
        "different_by_kind": dict(Counter(kind for kind, _ in differences)),
        "first_failures": _first(problems),
        "first_differences": _first(differences),
    }


def clean(figures: dict[str, Any], fault: Fault) -> bool:
    """Returns whether no stream failed or differed, and the faults hit at least one: one that was open, and that was
    moved if the fault moves streams."""
    hit: int = figures["moved" if fault in MOVING else "open_at_fault"]
    return not figures["failed"] and not figures["different"] and hit > 0


def _first(found: Sequence[tuple[str, str]]) -> dict[str, str]:
    return dict(reversed(found))


def _finite(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 1)
