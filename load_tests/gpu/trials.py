"""Shapes of kernels that are worth a try, by what they are tried on: the rows that the tables of a card may get."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F

from engine.kernels.triton.grouped import KINDS as GROUPED_KINDS
from engine.kernels.triton.grouped import grouped_matmul
from engine.kernels.triton.matmul import matmul, new_arrivals
from engine.kernels.triton.quantised import KINDS, quantised_matmul
from engine.kernels.triton.tiling import Tiling
from engine.kernels.triton.tuning import Shape, card_of, format_of, tuning_of
from engine.kernels.triton.vector import VectorShape, vector_matmul
from engine.quant.format import FP8, INT4, INT8
from engine.quant.matrix import packed
from engine.quant.quantise import quantise
from load_tests.gpu.attention import Load, loads, prepared
from load_tests.gpu.figure import Bench
from load_tests.gpu.groups import TYPES, packed_as
from load_tests.gpu.products import matrices_of
from load_tests.gpu.shapes import LLAMA_8B, spec_named


@dataclass(frozen=True, slots=True)
class Trial:
    """One shape: what it is, and the work whose times are added up."""

    label: str
    works: tuple[Callable[[], object], ...]


@dataclass(frozen=True, slots=True)
class Group:
    """Trials of one load, of which the quickest is wanted; ``amount`` bytes or operations, by ``limit``."""

    name: str
    make: Callable[[], list[Trial]]
    amount: float
    limit: str


def groups(bench: Bench) -> Iterator[Group]:
    """Attention first, then the four products of a layer of Llama-3.1-8B."""
    exact = ("decode 256 x 1024 bfloat16", "prefill bfloat16 8192")
    usual = ("decode 64 x 4096", "decode 256 x 1024", "decode 1 x 32768", "prefill")
    found = loads(bench)
    for load in found if bench.dry else [each for each in found if each.name.startswith(usual)]:
        yield _attention(bench, load, deterministic=False)
    for load in found if bench.dry else [each for each in found if each.name in exact]:
        yield _attention(bench, load, deterministic=True)
    for rows in (2,) if bench.dry else (1, 64, 256, 1024, 4096):
        yield from _products(bench, rows)


_FEW = (
    Shape(16, 64, 4, 2),
    Shape(16, 64, 4, 3),
    Shape(16, 64, 4, 4),
    Shape(16, 64, 2, 3),
    Shape(16, 128, 4, 2),
    Shape(16, 128, 4, 3),
    Shape(16, 128, 8, 3),
    Shape(16, 32, 2, 4),
)
_MANY = (
    Shape(128, 64, 8, 3),
    Shape(128, 64, 8, 2),
    Shape(128, 128, 8, 2),
    Shape(128, 128, 8, 3),
    Shape(64, 64, 4, 3),
    Shape(128, 64, 4, 3),
)
_EXACT = (
    Shape(64, 32, 4, 4),
    Shape(64, 64, 4, 3),
    Shape(64, 64, 4, 4),
    Shape(64, 64, 4, 2),
    Shape(128, 64, 8, 3),
    Shape(128, 32, 8, 3),
    Shape(32, 64, 4, 3),
    Shape(64, 128, 4, 2),
)


def _attention(bench: Bench, load: Load, deterministic: bool) -> Group:
    amount, limit = load.cost(bench.dtype)
    name, shapes = ("exact", _EXACT) if deterministic else ("many", _MANY) if load.part.count > 1 else ("few", _FEW)

    def make() -> list[Trial]:
        usual = tuning_of(card_of(bench.device), load.heads.size, format_of(bench.dtype, load.form.number))
        run = prepared(bench, load, deterministic)
        tunings = {json.dumps(asdict(usual)): usual}
        for keys in () if bench.dry or not deterministic else (1024, 2048):
            for shape in (Shape(64, 64, 4, 3), Shape(128, 64, 8, 3)):
                tunings[f"exact_split {keys} {_told(shape)}"] = replace(usual, exact=shape, exact_split=keys)
        for shape in () if bench.dry else shapes:
            kernels: dict[str, Any] = {name: shape}
            tunings[f"{name} {_told(shape)}"] = replace(usual, **kernels)
        return [Trial(label, (partial(run, tuning),)) for label, tuning in tunings.items()]

    return Group(load.name + (", deterministic" if deterministic else ""), make, amount, limit)


def _told(shape: Shape | Tiling | VectorShape) -> str:
    return " ".join(f"{name}={value}" for name, value in asdict(shape).items())


def _tilings(kind: str, rows: int) -> list[Tiling]:
    """Of words for int8, int4 and groups, whose step is always 64; of fixed order for bfloat16, where ``programs`` is
    what all tilings share."""
    grouped = kind in GROUPED_KINDS.values()
    programs: tuple[int, ...] = (127, 255) if kind == "bfloat16" else (264, 528)
    if rows <= 16:
        steps = (64,) if grouped else (64, 128) if kind in ("int4", "bfloat16") else (128, 256)
        shapes = [(16, outputs, step, 4, stages) for outputs, step, stages in product((64,), steps, (4, 6))]
        shapes += [(16, 128, steps[0], 4, 4), (16, 128, steps[0], 8, 4)]
        if kind != "bfloat16":
            shapes += [(16, 32, steps[-1], 4, 4), (16, 32, steps[-1], 2, 4)]
    elif rows <= 64:
        steps = (64,) if grouped else (64, 128)
        shapes = [(64, 64, step, 4, stages) for step, stages in product(steps, (3, 4))]
        shapes += [(64, 128, 64, 4, 4), (64, 128, 64, 8, 4), (64, 128, steps[-1], 8, 3)]
        shapes += [(16, 64, 64, 4, 4), (16, 128, 64, 4, 4)] if grouped else []  # may scale sums
    else:
        step = 128 if kind == "fp8" else 64
        shapes = [(128, 128, step, 8, 3), (128, 128, step, 8, 4), (256, 128, step, 8, 3), (128, 256, step, 8, 3)]
        shapes += [(256, 64, step, 8, 4), (128, 64, step, 4, 4), (64, 128, step, 4, 4), (128, 128, step, 4, 3)]
        shapes += [(128, 256, step, 16, 3), (256, 128, step, 16, 3)]
        programs = programs if kind == "bfloat16" else programs[:1]
    return [Tiling(*shape, programs=each) for each in programs for shape in shapes]


def _vectors() -> list[VectorShape]:
    """Of 16 to 64 columns for each thread."""
    shapes = [VectorShape(*each) for each in product((2, 4, 8), (512, 1024, 2048), (4, 8))]
    return [shape for shape in shapes if 16 <= shape.outputs * shape.inputs // (32 * shape.warps) <= 64]


def _products(bench: Bench, rows: int) -> Iterator[Group]:
    """A layer's four products: of bfloat16 in fixed order beside cuBLAS, and of formats."""
    sizes = list(matrices_of(spec_named(LLAMA_8B, bench)).values())
    numbers = sum(outputs * inputs for outputs, inputs in sizes)
    limit = "matmul" if rows > 256 else "copy"

    def drawn() -> list[tuple[torch.Tensor, torch.Tensor]]:
        return [
            (
                torch.randn(rows, inputs, device=bench.device).to(bench.dtype),
                torch.randn(outputs, inputs, device=bench.device).mul_(inputs**-0.5).to(bench.dtype),
            )
            for outputs, inputs in sizes
        ]

    def plain() -> list[Trial]:
        arrivals, made = new_arrivals(bench.device), drawn()
        found = [Trial("cuBLAS", tuple(partial(F.linear, x, weight) for x, weight in made))]
        for tile in _tilings("bfloat16", rows)[: 1 if bench.dry else None]:
            works = tuple(partial(matmul, x, weight, None, arrivals, tile=tile) for x, weight in made)
            found.append(Trial(_told(tile), works))
        for shape in _vectors() if rows == 1 else ():
            works = tuple(partial(vector_matmul, x, weight, None, shape=shape) for x, weight in made)
            found.append(Trial(f"vector {_told(shape)}", works))
        return found

    def quantised(form_index: int) -> list[Trial]:
        form = (INT8, INT4, FP8)[form_index]
        arrivals = new_arrivals(bench.device)
        made = [(x, packed(quantise(weight, form), form)) for x, weight in drawn()]
        found = []
        for tile in _tilings(KINDS[form], rows)[: 1 if bench.dry else None]:
            works = tuple(partial(quantised_matmul, x, weight, None, arrivals, tile=tile) for x, weight in made)
            found.append(Trial(_told(tile), works))
        return found

    def in_groups(name: str) -> list[Trial]:
        arrivals = new_arrivals(bench.device)
        made = [(x, packed_as(name, weight)) for x, weight in drawn()]
        found = []
        for tile in _tilings(GROUPED_KINDS[TYPES[name].bits], rows)[: 1 if bench.dry else None]:
            works = tuple(partial(grouped_matmul, x, weight, None, arrivals, tile=tile) for x, weight in made)
            found.append(Trial(_told(tile), works))
        return found

    flops = 2.0 * rows * numbers
    yield Group(f"products bfloat16 {rows} rows", plain, flops if rows > 256 else 2.0 * numbers, limit)
    for index, (name, size) in enumerate((("int8", 1.0), ("int4", 0.5625), ("fp8", 1.0))):
        amount = flops if rows > 256 else size * numbers
        yield Group(f"products {name} {rows} rows", partial(quantised, index), amount, limit)
    for name, size in (("Q4_1", 0.625), ("Q8_0", 1.0625)):
        amount = flops if rows > 256 else size * numbers
        yield Group(f"products {name} {rows} rows", partial(in_groups, name), amount, limit)
