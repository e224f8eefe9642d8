"""``tiles``: decides whether the kernels multiply in tile registers (Intel AMX). The processor must have them for
bfloat16 and int8, and the operating system must grant them to this process."""

from __future__ import annotations

import ctypes
import logging
import os
import platform
from enum import IntEnum
from functools import cache
from pathlib import Path

logger = logging.getLogger(__name__)

VARIABLE = "MANTA_AMX"
NEEDED = {"amx_tile", "amx_bf16", "amx_int8", "avx512_bf16", "avx512_vnni"}  # flags of /proc/cpuinfo
# Linux gives no process the 8 KiB of tile registers unless it asks (Documentation/arch/x86/xstate.rst).
SYS_ARCH_PRCTL, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA = 158, 0x1023, 18


class Tiles(IntEnum):
    """The use of tile registers that the C code is compiled for, numbered as in src/vector.h."""

    NONE = 0
    HARDWARE = 1
    EMULATED = 2
    """The same code and layout with the instructions computed in C: slow, for tests on other processors."""


@cache
def tiles() -> Tiles:
    """Returns the use of tile registers in this process, and logs it once. The environment variable MANTA_AMX decides:
    ``auto``, the default, uses them where they are available; ``off`` does not; ``emulated`` emulates them in C.

    Asks the operating system for permission at most once; threads that already run get it too. Raises ValueError for
    another value of the variable.
    """
    wish = os.environ.get(VARIABLE, "auto")
    if wish not in ("auto", "off", "emulated"):
        raise ValueError(f"{VARIABLE} must be auto, off or emulated, not {wish!r}")
    if wish == "emulated":
        logger.warning("AMX: emulated, which is slow (%s)", VARIABLE)
        return Tiles.EMULATED
    reason = f"{VARIABLE} is off" if wish == "off" else _missing()
    if reason is None:
        logger.info("AMX: on")
        return Tiles.HARDWARE
    logger.info("AMX: off; %s", reason)
    return Tiles.NONE


def _missing() -> str | None:
    """Why there are no tiles, or None if there are."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return "the kernels use it on x86-64 Linux alone"
    lacking = NEEDED - _processor_flags()
    if lacking:
        return f"the processor lacks {', '.join(sorted(lacking))}"
    if ctypes.CDLL(None, use_errno=True).syscall(SYS_ARCH_PRCTL, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA):
        return f"the operating system refuses it: {os.strerror(ctypes.get_errno())}"
    return None


def _processor_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return set()
    return set(next((line for line in lines if line.startswith("flags")), "").split())
