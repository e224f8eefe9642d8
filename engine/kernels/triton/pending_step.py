"""A step under way, and transfers between host and device that nobody waits for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.scheduler.step_plan import Chunk
from engine.step_result import unsound


def pinned(tensor: Tensor, device: torch.device) -> Tensor:
    """Where ``device`` can fetch it by itself: in memory that is not written again before it has."""
    return tensor.pin_memory() if device.type == "cuda" else tensor


def to_device(array: NDArray[np.int32], device: torch.device) -> Tensor:
    """On its way to the device."""
    return pinned(torch.from_numpy(array), device).to(device, non_blocking=True)


@dataclass(frozen=True, slots=True)
class Launch:
    """Chunks under way. ``told``, complete once ``done``: the tokens drawn after those that are ``sampled``, -1 where
    there was nothing to draw from, ``padded`` in all, then for each row whether its numbers were finite; int32."""

    chunks: tuple[Chunk, ...]
    sampled: tuple[Chunk, ...]
    told: Tensor
    padded: int
    done: torch.cuda.Event | None

    def read(self) -> tuple[dict[Chunk, int], set[Chunk]]:
        """Waits for it; the tokens after the chunks that sample, and the chunks in which something was no number."""
        if self.done is not None:
            self.done.synchronize()
        told: list[int] = self.told.tolist()
        tokens = dict(zip(self.sampled, told, strict=False))
        rows = sum(chunk.length for chunk in self.chunks)
        bad = unsound(self.chunks, told[self.padded : self.padded + rows])
        return tokens, {*bad, *(chunk for chunk, token in tokens.items() if token < 0)}


def launched(chunks: tuple[Chunk, ...], sampled: tuple[Chunk, ...], output: Tensor, padded: int) -> Launch:
    """Sends the ``output`` of a step on its way to the host, behind all that has been launched so far."""
    if output.device.type != "cuda":
        return Launch(chunks, sampled, output.clone(), padded, None)
    told = torch.empty_like(output, device="cpu", pin_memory=True)
    told.copy_(output, non_blocking=True)
    done = torch.cuda.Event()
    done.record()
    return Launch(chunks, sampled, told, padded, done)
