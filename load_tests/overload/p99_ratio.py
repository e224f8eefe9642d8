"""``python -m load_tests.overload.p99_ratio RUN.json ...``: by how many times one tenant's flood raises the others' P99
TTFT, over all runs together, and how sure that is.

A minute has some 350 requests of the others, so that its P99 is the fourth largest wait: one request more or less
decides. The interval says what other requests of the same kind would have given (bootstrap). The ratio of two P99s of
the load without a flood says what chance alone does.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SHARE = 0.99
DRAWS = 4000
BOUNDS = (2.5, 97.5)
"""Percentiles of the interval: 95 % lie in it."""


@dataclass(frozen=True, slots=True)
class P99Ratio:
    """The P99 beside a flood, divided by that without one. Both intervals hold 95 % of resampled ratios; ``by_chance``
    are those of the load without a flood to itself. ``requests`` are those beside the flood."""

    times: float
    interval: tuple[float, float]
    by_chance: tuple[float, float]
    requests: int

    def json(self) -> dict[str, Any]:
        return asdict(self)


def p99_ratio(alone_s: Sequence[float], beside_s: Sequence[float], draws: int = DRAWS) -> P99Ratio:
    """Returns the ratio of the P99s of two lists of waits, in seconds. Raises ValueError if one of them is empty."""
    if not alone_s or not beside_s:
        raise ValueError("no waits to compare")
    alone, beside = (np.sort(np.asarray(each, dtype=float)) for each in (alone_s, beside_s))
    generator = np.random.default_rng(0)
    first, second = (_resampled(alone, draws, generator) for _ in range(2))
    return P99Ratio(
        float(_p99(beside) / _p99(alone)),
        _interval(_resampled(beside, draws, generator) / first),
        _interval(second / first),
        len(beside),
    )


def _p99(ordered: NDArray[np.float64]) -> Any:
    """Returns the value that SHARE of sorted values do not exceed, as ``trial.percentile`` does; of each row."""
    return ordered[..., min(ordered.shape[-1] - 1, int(SHARE * ordered.shape[-1]))]


def _resampled(values: NDArray[np.float64], draws: int, generator: np.random.Generator) -> NDArray[np.float64]:
    return np.array([_p99(np.sort(generator.choice(values, len(values)))) for _ in range(draws)])


def _interval(ratios: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.percentile(ratios, BOUNDS)
    return float(low), float(high)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m load_tests.overload.p99_ratio", description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="files that `--tenant --json` has written")
    options = parser.parse_args(arguments)
    tenants = [json.loads(path.read_text(encoding="utf-8"))["tenant"] for path in options.runs]
    alone, beside = (
        [wait for each in tenants for wait in each[name]["waits_s"]] for name in ("alone", "with admission")
    )
    print(describe(p99_ratio(alone, beside)))
    return 0


def describe(ratio: P99Ratio) -> str:
    """Returns a line that says the ratio and its intervals."""
    return (
        f"P99 TTFT {ratio.times:.2f} x that without the flood ({ratio.requests} requests; 95 % of resampled ratios in "
        f"{ratio.interval[0]:.2f} to {ratio.interval[1]:.2f}; by chance alone {ratio.by_chance[0]:.2f} to "
        f"{ratio.by_chance[1]:.2f})"
    )


if __name__ == "__main__":
    sys.exit(main())
