"""Shapes of the attention kernels, tried one after the other: the rows that ``tuning.MEASURED`` may get."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from itertools import product

from engine.kernels.triton.tuning import AttentionTuning, Shape, card_of, format_of, tuning_of
from load_tests.gpu.attention import Load, loads, prepared
from load_tests.gpu.clock import seconds_of
from load_tests.gpu.figure import Bench, Case, Figure

_FEW = [Shape(16, keys, warps, stages) for keys, warps, stages in product((32, 64, 128), (2, 4), (2, 3, 4, 5))]
_MANY = [Shape(rows, keys, warps, stages) for rows, keys, warps, stages in
         ((128, 64, 8, 3), (128, 64, 8, 2), (128, 128, 8, 2), (128, 128, 8, 3), (64, 64, 4, 3), (64, 64, 4, 4),
          (64, 128, 4, 2), (128, 64, 4, 3), (128, 32, 8, 4), (128, 64, 8, 4))]  # fmt: skip


def cases(bench: Bench) -> Iterator[Case]:
    """The loads that matter most, each with all its shapes."""
    wanted = ("decode 64 x 4096", "prefill bfloat16 8192", "decode 1 x 32768", "decode 256 x 1024", "prefill int8")
    found = loads(bench)
    ordered = found if bench.dry else [load for start in wanted for load in found if load.name.startswith(start)]
    for load in ordered:
        yield Case(load.name, partial(_best, bench, load))


def _tunings(bench: Bench, load: Load, usual: AttentionTuning) -> list[AttentionTuning]:
    if bench.dry:
        return [usual, replace(usual, least_split=16)]
    if load.part.count > 1:
        return [usual, *(replace(usual, many=shape) for shape in _MANY)]
    shapes = [replace(usual, few=shape) for shape in _FEW]
    return [usual, *shapes, *(replace(usual, least_split=least) for least in (128, 512, 1024))]


def _best(bench: Bench, load: Load) -> list[Figure]:
    """The usual shape and the best three; what does not compile or fit is left out, and counted."""
    usual = tuning_of(card_of(bench.device), load.heads.size, format_of(bench.dtype, load.form.number))
    run = prepared(bench, load)
    times: list[tuple[float, AttentionTuning]] = []
    failed = []
    for tuning in _tunings(bench, load, usual):
        try:
            times.append((seconds_of(bench, partial(run, tuning)), tuning))
        except Exception as error:
            if "CUDA error" in str(error):
                raise
            failed.append(type(error).__name__)
    amount, limit = load.cost(bench.dtype)
    figures = [bench.rated("usual", times[0][0], amount, limit, note=_told(usual))] if times[0][1] is usual else []
    for place, (seconds, tuning) in enumerate(sorted(times, key=lambda each: each[0])[:3]):
        note = _told(tuning) + (f"; {len(failed)} shapes failed" if failed else "")
        figures.append(bench.rated(f"best {place + 1}", seconds, amount, limit, note=note))
    return figures


def _told(tuning: AttentionTuning) -> str:
    return json.dumps(asdict(tuning))
