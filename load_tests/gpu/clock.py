"""Seconds that work takes on a card, by its own events: the median of many runs, with nothing left in its L2 cache."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch

from load_tests.gpu.figure import Bench

WARM_UPS = 3
RUNS = 20
FLUSHED = 512 << 20  # bytes: ten times the L2 of an H100, and long enough to write that launches are hidden behind it


def seconds_of(bench: Bench, work: Callable[[], object], runs: int = RUNS, *, captured: bool = True) -> float:
    """Of one run of ``work``, captured as a graph unless it cannot be: then its launches are on the clock too."""
    if bench.dry:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began
    run = _captured(work) if captured else work
    for _ in range(WARM_UPS):
        run()
    flush = torch.empty(FLUSHED, dtype=torch.uint8, device=bench.device)
    marks = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(runs)]
    for begin, end in marks:
        flush.zero_()
        begin.record()
        run()
        end.record()
    torch.cuda.synchronize()
    milliseconds: list[float] = [begin.elapsed_time(end) for begin, end in marks]
    return median(milliseconds) / 1e3


def _captured(work: Callable[[], object]) -> Callable[[], object]:
    """The same as a graph: what is measured is the card, not Python."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay
