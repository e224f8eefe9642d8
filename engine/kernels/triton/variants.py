"""Compiles kernels ahead, for a GPU that need not be present: ``python -m engine.kernels.triton.variants``.

Prints registers, spills and shared memory of each kernel in its important shapes; fails if one does not compile or
spills. The function ``variants`` of each kernel's file yields the variants that are compiled.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

MODULES = (
    "attention_variants",
    "norms",
    "heads",
    "activations",
    "sampling",
    "matmul",
    "streamed",
    "vector",
    "quantised",
    "grouped",
    "embedding",
    "experts",
)
"""Files of this package that have kernels, in the order in which they are told."""
SHARED_LIMIT = 227 * 1024  # bytes a program may use on sm_90


@dataclass(frozen=True, slots=True)
class Variant:
    """One kernel in one shape. ``signature`` has the type of each argument that is not in ``constants``, as Triton
    writes them ("*bf16", "i32"); pointers and the whole numbers named in ``aligned`` are multiples of 16."""

    name: str
    kernel: Any  # a triton.JITFunction
    signature: Mapping[str, str]
    constants: Mapping[str, object] = field(default_factory=dict)
    aligned: frozenset[str] = frozenset()
    warps: int = 4
    stages: int = 3
    fused: bool = True  # whether products and sums may be rounded once for both


@dataclass(frozen=True, slots=True)
class Usage:
    """The resources of a compiled variant: registers per thread, bytes spilled, bytes of shared memory per program."""

    registers: int
    spilled: int
    shared: int


def compiled(variant: Variant, capability: int = 90) -> Usage:
    """Compiles ``variant`` to machine code for a compute ``capability``, such as 90, and returns its resources. Raises
    ValueError if the machine code does not state them, and what Triton's compiler raises."""
    names = list(variant.kernel.arg_names)
    types = {name: "constexpr" if name in variant.constants else variant.signature[name] for name in names}
    hints = {
        (place,): [["tt.divisibility", 16]]
        for place, name in enumerate(names)
        if types[name].startswith("*") or name in variant.aligned
    }
    source = ASTSource(fn=variant.kernel, signature=types, constexprs=dict(variant.constants), attrs=hints)
    options = {"num_warps": variant.warps, "num_stages": variant.stages, "enable_fp_fusion": variant.fused}
    built = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    registers, spilled = _resources(built.asm["cubin"])
    return Usage(registers, spilled, built.metadata.shared)


def _resources(cubin: bytes) -> tuple[int, int]:
    """Registers per thread and bytes of local memory of the kernel in ``cubin``."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(tool), "--dump-resource-usage", file.name]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", told)
    if found is None:
        raise ValueError(f"no resource usage in {told!r}")
    return int(found[1]), int(found[2])


def all_variants(modules: Iterable[str] = MODULES) -> Iterator[Variant]:
    """Yields the variants of all ``modules``."""
    for name in modules:
        yield from import_module(f"engine.kernels.triton.{name}").variants()


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--capability", type=int, default=90, help="compute capability: 90 for H100 and H200")
    options.add_argument("--only", default="", help="a part of the names of those wanted")
    options.add_argument("--one-of-each", action="store_true", help="of each kernel the first shape alone")
    given = options.parse_args()
    failed = 0
    print(f"{'kernel':<56}{'registers':>10}{'spilled':>9}{'shared':>9}")
    seen: set[tuple[int, object]] = set()
    for variant in all_variants():
        kind = id(variant.kernel), variant.constants.get("grouped")  # products in groups share no loop with others
        if given.only not in variant.name or (given.one_of_each and kind in seen):
            continue
        seen.add(kind)
        usage = compiled(variant, given.capability)
        failed += usage.spilled > 0 or usage.shared > SHARED_LIMIT
        print(f"{variant.name:<56}{usage.registers:>10}{usage.spilled:>9}{usage.shared:>9}", flush=True)
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
