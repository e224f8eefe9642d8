"""Captures steps as CUDA graphs, so that launching hundreds of kernels costs as much as launching one.

The graph of the largest size is captured first, every other one when its size is first used. Graphs share one memory
pool, and the memory of the largest is enough for all others.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

Size = TypeVar("Size", bound=Hashable)
WARM_UPS = 2  # runs before a capture: kernels are compiled and libraries take their workspaces, which no graph may do


class Steps(Protocol[Size]):
    """Runs steps whose inputs are in buffers at fixed addresses, so that CUDA graphs can replay them. Steps are padded
    to one of a few sizes."""

    def prepare(self, size: Size, clear: Callable[[Size], None]) -> None:
        """Prepares steps of a size, once. ``clear`` fills the buffers of a size with a step of padding, which may be
        run several times."""
        ...

    def run(self, size: Size) -> Tensor:
        """Runs a prepared step and returns its output, which the next run of the same size overwrites."""
        ...


class Uncaptured(Generic[Size]):
    """Runs every step kernel by kernel, without CUDA or to measure the gain of graphs. Implements ``Steps``."""

    def __init__(self, compute: Callable[[Size], Tensor]) -> None:
        self._compute = compute

    def prepare(self, size: Size, clear: Callable[[Size], None]) -> None:
        """Does nothing."""

    def run(self, size: Size) -> Tensor:
        return self._compute(size)


class Graphs(Generic[Size]):
    """Captures and replays CUDA graphs. Implements ``Steps``. ``compute`` runs a step of a size and returns its output;
    ``largest`` is the largest size that will be used."""

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
