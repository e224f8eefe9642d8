"""Runs as a table and as a JSON object. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from load_tests.simulation.measures import Measures


def table(runs: Sequence[Measures], oracle: Measures | None) -> str:
    """Returns a line for each run, best first: attainment, then GPU-hours, also as a multiple of the oracle's."""
    lines = [
        f"{'policy':<10} {'attained':>9} {'GPU-hours':>10} {'x oracle':>9} {'mean':>7} {'peak':>6} {'changes':>8} "
        f"{'TTFT p50':>9} {'p99':>8} {'ITL p50':>9} {'p99':>8} {'refused':>8}"
    ]
    for run in runs if oracle is None else [oracle, *runs]:
        shown = run.classes.get("interactive") or next(iter(run.classes.values()))
        ratio = "" if oracle is None else f"{run.gpu_hours / oracle.gpu_hours:.3f}"
        lines.append(
            f"{run.policy:<10} {run.attainment:>9.2%} {run.gpu_hours:>10.2f} {ratio:>9} {run.mean_replicas:>7.1f} "
            f"{run.peak_replicas:>6} {run.changes:>8} {shown.ttft_p50_s:>7.2f} s {shown.ttft_p99_s:>6.2f} s "
            f"{1000 * shown.itl_p50_s:>6.1f} ms {1000 * shown.itl_p99_s:>5.1f} ms {run.refused:>8}"
        )
    return "\n".join(lines)


def document(run: Measures, oracle: Measures | None, wall_s: float, others: Sequence[Measures] = ()) -> dict[str, Any]:
    """Returns the run as a JSON object. ``wall_s`` is the wall time of the run alone, without the oracle's search."""
    result = {
        "attainment": run.attainment,
        "gpu_hours": run.gpu_hours,
        "oracle_gpu_hours": None if oracle is None else oracle.gpu_hours,
        "requests": run.requests,
        "wall_s": wall_s,
        **{key: value for key, value in asdict(run).items() if key not in ("attainment", "gpu_hours", "requests")},
    }
    if others:
        result["runs"] = [asdict(each) for each in others]
    return dict(_finite(result))


def _finite(value: Any) -> Any:
    """NaN, which JSON does not know, becomes null."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
