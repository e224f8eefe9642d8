"""``Launch``: a step that runs on the device, and asynchronous transfers between host and device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.scheduler.step_plan import Chunk
from engine.step_result import unsound


def pinned(tensor: Tensor, device: torch.device) -> Tensor:
    """Returns ``tensor`` in pinned host memory if ``device`` is a GPU, so that a copy to it is asynchronous."""
    return tensor.pin_memory() if device.type == "cuda" else tensor


def to_device(array: NDArray[np.int32], device: torch.device) -> Tensor:
    """Starts copying ``array`` to ``device`` and returns the tensor there, without waiting."""
    return pinned(torch.from_numpy(array), device).to(device, non_blocking=True)


@dataclass(frozen=True, slots=True)
class Launch:
    """A launched step over ``chunks``. ``told``, int32, is its result on the host, complete once ``done`` has occurred.
    It has the tokens drawn after the chunks ``sampled`` (-1 if there was no finite logit), padded to ``padded``
    numbers, then for each row 1 if all its numbers were finite."""

    chunks: tuple[Chunk, ...]
    sampled: tuple[Chunk, ...]
    told: Tensor
    padded: int
    done: torch.cuda.Event | None

    def read(self) -> tuple[dict[Chunk, int], set[Chunk]]:
        """Waits for the step. Returns the token after each chunk that samples, and the chunks with NaN or Inf."""
        if self.done is not None:
            self.done.synchronize()
        told: list[int] = self.told.tolist()
        tokens = dict(zip(self.sampled, told, strict=False))
        rows = sum(chunk.length for chunk in self.chunks)
        bad = unsound(self.chunks, told[self.padded : self.padded + rows])
        return tokens, {*bad, *(chunk for chunk, token in tokens.items() if token < 0)}


def launched(chunks: tuple[Chunk, ...], sampled: tuple[Chunk, ...], output: Tensor, padded: int) -> Launch:
    """Starts copying the ``output`` of a step to the host, after all work launched so far, and returns the launch.
    ``chunks`` are those of the step, ``sampled`` those after which a token is sampled, ``padded`` is the number of
    tokens in ``output``, padding included: the first of its numbers, as in ``Launch``."""
    if output.device.type != "cuda":
        return Launch(chunks, sampled, output.clone(), padded, None)
    told = torch.empty_like(output, device="cpu", pin_memory=True)
    told.copy_(output, non_blocking=True)
    done = torch.cuda.Event()
    done.record()
    return Launch(chunks, sampled, told, padded, done)
