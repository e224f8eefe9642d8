"""The compiled kernels that only tests use: for processors that lack something, and with emulated tile registers.

``python -m tests.engine.kernel_builds`` builds them beforehand, up to a minute each. They are in the user's cache
folder, where all processes of a run find them.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final
from unittest.mock import patch

from engine.kernels.cpu import compiler
from engine.kernels.cpu.tiles import Tiles

LibraryOf = Callable[[Tiles], ctypes.CDLL]
"""The kernels for those registers."""
UseTiles = Callable[[Tiles], None]
"""Engines made from now on have those registers."""

LESSER: Final = ("-march=x86-64-v2", "-march=x86-64-v3", "-march=x86-64-v4", "-mno-avx512vnni")
"""The flags by which a compiler knows a processor that lacks something."""


def built_with(flag: str) -> Path:
    """Returns the path of the kernels that are built with ``flag``, one of LESSER. Raises CompilerError."""
    with patch.object(compiler, "FLAGS", (*compiler.FLAGS, flag)):
        return compiler.built(registers=Tiles.NONE)


def main() -> int:
    """Builds all of them and returns the exit code: 0, or 1 if one cannot be built. Then it prints why."""
    try:
        compiler.built(registers=Tiles.EMULATED)
        for flag in LESSER if platform.machine() == "x86_64" else ():
            built_with(flag)
    except (compiler.CompilerError, OSError) as error:
        sys.stderr.write(f"kernels of the tests: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
