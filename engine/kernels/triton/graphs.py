"""Steps captured as CUDA graphs, so that launching hundreds of kernels costs what launching one does.

A graph is captured when its size is first wanted, after the largest size of all: graphs share one pool of memory, and
what the largest has taken is enough for all others.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import torch
from torch import Tensor

Size = TypeVar("Size", bound=Hashable)
WARM_UPS = 2  # runs before a capture: kernels are compiled and libraries take their workspaces, which no graph may do


class Graphs(Generic[Size]):
    """``compute`` makes a step of a size from buffers that stay where they are, and gives its output; ``largest`` is
    the largest that will be asked for. Where there is no CUDA every step is computed as it comes."""

    def __init__(self, compute: Callable[[Size], Tensor], largest: Size, device: torch.device) -> None:
        self._compute = compute
        self._largest = largest
        self._device = device
        self._captured: dict[Size, tuple[torch.cuda.CUDAGraph, Tensor]] = {}

    def prepare(self, size: Size) -> None:
        """Captures what is missing. The buffers of sizes that have not run yet must hold a step that may be run
        several times, such as one of padding."""
        if self._device.type == "cuda":
            for each in dict.fromkeys((self._largest, size)):
                if each not in self._captured:
                    self._captured[each] = self._capture(each)

    def run(self, size: Size) -> Tensor:
        """The output of a prepared step, which the next run of the same size overwrites."""
        if self._device.type != "cuda":
            return self._compute(size)
        graph, output = self._captured[size]
        graph.replay()
        return output

    def _capture(self, size: Size) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        stream = torch.cuda.Stream(self._device)
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                self._compute(size)
        torch.cuda.current_stream(self._device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        shared = next(iter(self._captured.values()))[0].pool() if self._captured else None
        with torch.cuda.graph(graph, pool=shared):
            output = self._compute(size)
        return graph, output
