"""How much memory there is, and how its collector is kept out of the way."""

from __future__ import annotations

import gc
from functools import cache
from pathlib import Path

import torch

MEMINFO = Path("/proc/meminfo")


def available_bytes(device: torch.device, meminfo: Path = MEMINFO) -> int | None:
    """Bytes that can still be had on ``device``; None if the system does not tell."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free
    try:
        lines = meminfo.read_text("ascii").splitlines()
    except OSError:
        return None
    kibibytes = next((line.split()[1] for line in lines if line.startswith("MemAvailable:")), None)
    return None if kibibytes is None else int(kibibytes) * 1024


@cache
def settle() -> None:
    """Once per process: takes what is alive out of the garbage collector's sight. Libraries and a loaded model are some
    hundred thousand objects; a full collection that walks them takes 150 ms, in the middle of a step."""
    gc.collect()
    gc.freeze()
