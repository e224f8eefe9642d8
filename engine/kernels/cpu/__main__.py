"""``python -m engine.kernels.cpu``: builds the kernels for this machine, so that the first engine need not."""

from __future__ import annotations

import sys

from engine.kernels.cpu.compiler import CompilerError, built


def main() -> int:
    """Builds the kernels and returns the exit code: 0, or 1 if they cannot be built. Then it prints why; engines use
    torch instead."""
    try:
        built()
    except (CompilerError, OSError) as error:
        sys.stderr.write(f"kernels: models run on torch, more slowly: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
