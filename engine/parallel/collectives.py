"""``ProcessGroup``: the collective operations between ranks, with gloo on CPUs and NCCL on GPUs.

Process groups are made without torch.distributed's global one, so that a process can have several engines.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor


class ProcessGroup:
    """Implements ``Exchange`` with one of torch.distributed's backends."""

    def __init__(self, backend: Any, rank: int, ranks: int, device: torch.device) -> None:
        self._backend = backend
        self._device = device
        self.rank = rank
        self.ranks = ranks
        self._to_first = dist.GatherOptions()
        self._to_first.rootRank = 0

    @classmethod
    def join(cls, meeting: Path, rank: int, ranks: int, device: torch.device, limit_s: float) -> Self:
        """Joins the other ranks and returns the group. The ranks find each other through the file ``meeting``, which no
        other user may write to. On a CPU, an operation that takes longer than ``limit_s`` seconds raises RuntimeError.
        On a GPU it ends the process after 2 x ``limit_s``, unless ``abort`` is called before."""
        store = dist.FileStore(str(meeting), ranks)  # type: ignore[attr-defined]  # there, but not in its list
        if device.type == "cuda":
            options = dist.ProcessGroupNCCL.Options()
            options._timeout = timedelta(seconds=2 * limit_s)
            return cls(dist.ProcessGroupNCCL(store, rank, ranks, options), rank, ranks, device)
        settings = dist.ProcessGroupGloo._Options()  # type: ignore[attr-defined]  # the only way to name a device
        settings._devices = [dist.ProcessGroupGloo.create_device(hostname="127.0.0.1")]  # no port for the network
        settings._timeout = timedelta(seconds=limit_s)
        settings._threads = 1
        return cls(dist.ProcessGroupGloo(store, rank, ranks, settings), rank, ranks, device)

    def meet(self) -> None:
        """Runs a first operation, on all ranks at once, because NCCL makes its connections then. Raises RuntimeError if
        the ranks do not reach each other."""
        together = self.sum(torch.ones(1, device=self._device)).item()
        if together != self.ranks:
            raise RuntimeError(f"{self.ranks} ranks add up to {together}")

    def sum(self, x: Tensor) -> Tensor:
        if self.ranks > 2 and x.dtype == torch.float32:
            # An all-reduce adds in an order that depends on where a number lies in the whole, and so on the batch.
            parts = x.new_empty(self.ranks, *x.shape)
            self._backend.allgather([list(parts.unbind())], [x.contiguous()]).wait()
            total = parts[0]
            for part in parts[1:]:
                total += part
            return total
        x = x.contiguous()
        self._backend.allreduce([x]).wait()
        return x

    def gather(self, x: Tensor) -> Tensor:
        x = x.contiguous()
        if self.rank != 0:
            self._backend.gather([], [x], self._to_first).wait()
            return x
        parts = x.new_empty(self.ranks, *x.shape)
        self._backend.gather([list(parts.unbind())], [x], self._to_first).wait()
        return torch.cat(tuple(parts), -1)

    def abort(self) -> None:
        self._backend.abort()
