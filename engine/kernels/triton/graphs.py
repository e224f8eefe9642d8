"""Steps captured as CUDA graphs, so that launching hundreds of kernels costs what launching one does.

A graph is captured when its size is first wanted, after the largest size of all: graphs share one pool of memory, and
what the largest has taken is enough for all others.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

Size = TypeVar("Size", bound=Hashable)
WARM_UPS = 2  # runs before a capture: kernels are compiled and libraries take their workspaces, which no graph may do


class Steps(Protocol[Size]):
    """Runs steps of a size from buffers that stay where they are."""

    def prepare(self, size: Size, clear: Callable[[Size], None]) -> None:
        """Does what has to be done once for steps of a size. ``clear`` leaves a step in the buffers of a size that may
        be run several times: one of padding."""
        ...

    def run(self, size: Size) -> Tensor:
        """The output of a prepared step, which the next run of the same size overwrites."""
        ...


class Uncaptured(Generic[Size]):
    """Every step kernel by kernel: where there is no CUDA, and to see what graphs are worth."""

    def __init__(self, compute: Callable[[Size], Tensor]) -> None:
        self._compute = compute

    def prepare(self, size: Size, clear: Callable[[Size], None]) -> None:
        """There is nothing to prepare."""

    def run(self, size: Size) -> Tensor:
        return self._compute(size)


class Graphs(Generic[Size]):
    """``compute`` makes a step of a size and gives its output; ``largest`` is the largest that will be asked for."""

    def __init__(self, compute: Callable[[Size], Tensor], largest: Size, device: torch.device) -> None:
        self._compute = compute
        self._largest = largest
        self._device = device
        # One for all captures: libraries keep a workspace for each that they have seen.
        self._stream = torch.cuda.Stream(device)
        self._captured: dict[Size, tuple[torch.cuda.CUDAGraph, Tensor]] = {}

    def prepare(self, size: Size, clear: Callable[[Size], None]) -> None:
        for each in (self._largest, size):
            if each not in self._captured:
                clear(each)
                self._captured[each] = self._capture(each)

    def run(self, size: Size) -> Tensor:
        graph, output = self._captured[size]
        graph.replay()
        return output

    def _capture(self, size: Size) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            for _ in range(WARM_UPS):
                self._compute(size)
        torch.cuda.current_stream(self._device).wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        shared = next(iter(self._captured.values()))[0].pool() if self._captured else None
        with torch.cuda.graph(graph, pool=shared, stream=self._stream):
            output = self._compute(size)
        return graph, output
