"""The most memory that a test takes."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path


def peak_bytes() -> int:
    """The most memory that this process has had resident since ``reset_peak``."""
    status = Path("/proc/self/status").read_text("ascii")
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])  # type: ignore[index]


def reset_peak() -> int:
    """Starts the measurement anew, without free memory that would hide an allocation; returns what is resident now."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", "ascii")
    return peak_bytes()
