"""``scan_library``: the C function that searches a partition, compiled once for each processor."""

from __future__ import annotations

import ctypes
import logging
from functools import cache
from pathlib import Path
from typing import Protocol

from engine.kernels.cpu.compiler import CompilerError, built_source

SOURCE = Path(__file__).with_name("scan.c")

logger = logging.getLogger(__name__)


class NearestRows(Protocol):
    """``nearest_rows`` of scan.c. It keeps no lock of Python's."""

    def __call__(
        self,
        blocks: int,
        rows: int,
        block_rows: int,
        words: int,
        dimensions: int,
        rotation: int | None,
        code: int,
        near: int,
        nearer: int,
        count: int,
        found: int,
        best: int,
        cosines: int,
        /,
    ) -> int: ...


@cache
def scan_library() -> NearestRows | None:
    """Returns the function, compiled if it has not been on this machine. None, after a line in the log, if it cannot be
    compiled."""
    try:
        return loaded_scan(built_source(SOURCE, "scan"))
    except (CompilerError, OSError) as error:
        logger.warning("the semantic index is searched by numpy, many times as slowly: %s", error)
        return None


def loaded_scan(library: Path) -> NearestRows:
    """Returns the function of a library that ``scan.c`` was compiled to. Raises OSError if it cannot be loaded."""
    function = ctypes.CDLL(str(library)).nearest_rows
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    function.argtypes = [
        *(pointer, number, number, number, number, pointer, pointer),
        *(number, number, number, pointer, pointer, pointer),
    ]
    function.restype = number
    found: NearestRows = function
    return found
