"""Products of the compiled kernels alone, y = x W^T in bfloat16, beside what the machine can do.

    python -m load_tests.engine.products

The weights are many copies of one matrix, multiplied in turn, so that they are read from memory and not from a cache.
Each round measures the machine's peak before each number of rows: products in registers, and reading the same weights.
Shares of the peak are computed within a round; the table has their medians. The time of a product includes the
conversion of x from float32 to bfloat16. A product with 16 outputs measures that conversion.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import random
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from engine.kernels.cpu.library import BFLOAT16, Linear, loaded
from engine.kernels.cpu.packing import PANEL, panels
from load_tests.engine.limits import Limits, cores, has_tiles, measure_once

ROWS = (1, 8, 16, 32, 128, 512)
ROWS_STORED = 16  # the room for inputs has whole blocks of as many rows
LEAST_S = 0.3  # of a measurement
TOLERANCE = 1e-2  # of the largest output: inputs are rounded to bfloat16 in both, sums in another order


@dataclass(frozen=True, slots=True)
class Measured:
    """One product in one round: seconds that it took, seconds of them that converted its inputs, and what the machine
    could do at that time."""

    rows: int
    seconds: float
    converting: float
    limits: Limits


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the table: medians of the rounds."""

    rows: int
    us: float
    converting_us: float
    gflops: float
    of_peak: float
    gbytes: float
    of_reading: float

    @classmethod
    def of(cls, rounds: Sequence[Measured], inputs: int, outputs: int) -> Line:
        """The line of one number of rows."""
        rows, size = rounds[0].rows, inputs * outputs
        flops = [2 * rows * size / each.seconds for each in rounds]
        read = [2 * size / each.seconds for each in rounds]
        return cls(
            rows,
            statistics.median(each.seconds for each in rounds) * 1e6,
            statistics.median(each.converting for each in rounds) * 1e6,
            statistics.median(flops) / 1e9,
            statistics.median(one / each.limits.bf16_flops for one, each in zip(flops, rounds, strict=True)),
            statistics.median(read) / 1e9,
            statistics.median(one / each.limits.read_bytes for one, each in zip(read, rounds, strict=True)),
        )


class Products:
    """Copies of one matrix [outputs, inputs] of random weights, and what multiplies with them."""

    def __init__(self, inputs: int, outputs: int, megabytes: int, threads: int) -> None:
        self._library = loaded()
        self._pool = self._library.manta_pool_open(threads)
        self._inputs, self._outputs = inputs, outputs
        self._weight = torch.randn(outputs, inputs).bfloat16()
        packed = panels(self._weight)
        copies = max(1, -(-(megabytes << 20) // packed.nbytes))
        self.memory = packed.repeat(copies, *[1] * (packed.dim() - 1))
        self._matrices = [self._linear(copy, outputs) for copy in self.memory.chunk(copies)]
        self._narrow = self._linear(packed, PANEL)
        self._kept = packed

    def check(self, rows: int) -> None:
        """Raises RuntimeError if a product is not what torch computes."""
        x = torch.randn(rows, self._inputs)
        exact = x.bfloat16().float() @ self._weight.float().T
        y = self._run(self._matrices[-1:], x)
        if not (y - exact).abs().max() <= TOLERANCE * exact.abs().max():
            raise RuntimeError(f"a product of {rows} rows is wrong")

    def seconds(self, rows: int) -> tuple[float, float]:
        """Seconds of a product, and of one that does little more than convert inputs: means over whole passes through
        the weights, for ``LEAST_S`` at least."""
        x = torch.randn(rows, self._inputs)
        return self._mean(self._matrices, x), self._mean([self._narrow] * len(self._matrices), x)

    def close(self) -> None:
        """Ends the threads."""
        self._library.manta_pool_close(self._pool)

    def _mean(self, matrices: Sequence[Linear], x: Tensor) -> float:
        self._run(matrices[-1:], x)
        passes, began, took = 0, time.perf_counter(), 0.0
        while took < LEAST_S:
            self._run(matrices, x)
            passes, took = passes + 1, time.perf_counter() - began
        return took / (passes * len(matrices))

    def _run(self, matrices: Sequence[Linear], x: Tensor) -> Tensor:
        """The product of ``x`` [rows, inputs] with each matrix. Returns the last, [rows, outputs]."""
        rows = len(x)
        y = torch.empty(rows, self._outputs)
        room = torch.empty(-(-rows // ROWS_STORED) * ROWS_STORED, self._inputs)
        product, rest = self._library.manta_product, (x.data_ptr(), y.data_ptr(), room.data_ptr(), rows, self._pool)
        for matrix in matrices:
            product(ctypes.byref(matrix), *rest)
        return y

    def _linear(self, packed: Tensor, outputs: int) -> Linear:
        return Linear(packed.data_ptr(), None, None, self._inputs, outputs, BFLOAT16)


def measure(products: Products, options: argparse.Namespace) -> list[Measured]:
    """All rounds, each with the numbers of rows in an order of its own."""
    draw = random.Random(0)
    found = []
    for turn in range(options.rounds):
        for rows in draw.sample(options.rows, len(options.rows)):
            limits = measure_once(products.memory, options.threads)
            found.append(Measured(rows, *products.seconds(rows), limits))
        print(f"round {turn + 1} of {options.rounds}", file=sys.stderr)
    return found


def table(lines: Sequence[Line]) -> str:
    """Markdown."""
    head = ("rows", "µs", "converting x, µs", "GFLOP/s", "of the peak", "GB/s of weights", "of reading")
    rows = [
        f"| {each.rows} | {each.us:,.0f} | {each.converting_us:,.0f} | {each.gflops:,.0f} | {each.of_peak:.0%} "
        f"| {each.gbytes:,.1f} | {each.of_reading:.0%} |"
        for each in lines
    ]
    return "\n".join([f"| {' | '.join(head)} |", "|" + " ---: |" * len(head), *rows])


def spread(values: Sequence[float], unit: str) -> str:
    """The median, and from the least to the most."""
    return f"{statistics.median(values) / 1e9:,.1f} {unit} ({min(values) / 1e9:,.1f} to {max(values) / 1e9:,.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--inputs", type=int, default=1024)
    add("--outputs", type=int, default=3072)
    add("--rows", type=int, nargs="+", default=list(ROWS))
    add("--megabytes", type=int, default=512, help="of weights (default: %(default)s)")
    add("--threads", type=int, default=cores())
    add("--rounds", type=int, default=5)
    add("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    torch.manual_seed(0)
    products = Products(options.inputs, options.outputs, options.megabytes, options.threads)
    try:
        for rows in options.rows:
            products.check(rows)
        found = measure(products, options)
    finally:
        products.close()
    by_rows = [[each for each in found if each.rows == rows] for rows in options.rows]
    lines = [Line.of(each, options.inputs, options.outputs) for each in by_rows]
    registers = "tile registers" if has_tiles() else "vector registers"
    print(f"peak of {options.threads} threads in {registers}: ", end="")
    print(spread([each.limits.bf16_flops for each in found], "GFLOP/s"))
    print(f"reading: {spread([each.limits.read_bytes for each in found], 'GB/s')}\n")
    print(table(lines))
    if options.json is not None:
        figures = {"lines": [asdict(each) for each in lines], "rounds": [asdict(each) for each in found]}
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
