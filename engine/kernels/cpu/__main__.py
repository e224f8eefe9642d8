"""``python -m engine.kernels.cpu``: builds the kernels for this machine, so that the first engine need not."""

from __future__ import annotations

import sys

from engine.kernels.cpu.compiler import CompilerError, built


def main() -> int:
    """Returns the exit code: 0, or 1 if the kernels cannot be built; a line says why, and torch is used instead."""
    try:
        built()
    except (CompilerError, OSError) as error:
        sys.stderr.write(f"kernels: models run on torch, more slowly: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
