"""How fast attention is: decodes as a part of what copying does, prompts as a part of what products do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from engine.kernels.triton.attention import paged_attention
from engine.kernels.triton.kernels import TritonKernels
from engine.kernels.triton.tuning import AttentionTuning, card_of, format_of, tuning_of
from engine.kv.format import FP8, INT8, KVFormat
from engine.kv.format import format_of as kv_format_of
from load_tests.gpu.clock import seconds_of
from load_tests.gpu.figure import Bench, Case, Figure
from load_tests.gpu.pages import Heads, Part, plan_of, random_pages

LLAMA, TINY = Heads(32, 8, 128), Heads(4, 2, 16)
DECODE_TARGET, PREFILL_TARGET = 0.85, 0.5


@dataclass(frozen=True, slots=True)
class Load:
    """A step of ``sequences`` alike, in one layer."""

    name: str
    sequences: int
    part: Part
    form: KVFormat
    heads: Heads = LLAMA

    @property
    def parts(self) -> Sequence[Part]:
        return [self.part] * self.sequences

    def cost(self, dtype: torch.dtype) -> tuple[float, str]:
        """Of decodes the bytes of keys, values, queries and outputs; of prompts the operations: four for each number
        of a head, query and key that it sees."""
        count, length = self.part.count, self.part.length
        if count == 1:
            kv = self.sequences * length * 2 * self.heads.keys * self.form.head_bytes(self.heads.size)
            return kv + 2 * self.sequences * self.heads.queries * self.heads.size * dtype.itemsize, "copy"
        seen = count * (length - count) + count * (count + 1) / 2
        return 4 * self.sequences * self.heads.queries * self.heads.size * seen, "matmul"


def loads(bench: Bench) -> list[Load]:
    """Decodes and prompts, in the formats of the cache."""
    plain = kv_format_of("auto", bench.dtype)
    if bench.dry:
        return [Load("decode", 2, Part(1, 40), plain, TINY), Load("prefill", 1, Part(40, 40), INT8, TINY)]
    decodes = [(64, 4096), (256, 1024), (1, 32_768)]
    found = [
        Load(f"decode {count} x {length} {form.name}", count, Part(1, length), form)
        for form in (plain, INT8, FP8)
        for count, length in decodes
    ]
    found += [Load(f"prefill {form.name} 8192", 1, Part(8192, 8192), form) for form in (plain, INT8, FP8)]
    return [*found, Load("prefill chunk of 2048 after 30k", 1, Part(2048, 32_768), plain)]


def prepared(bench: Bench, load: Load, deterministic: bool = False) -> Callable[[AttentionTuning | None], object]:
    """Runs the load with one tuning, None for the usual, over keys that stay the same."""
    cache, tables = random_pages(load.parts, load.heads, load.form, bench.device)
    usual = tuning_of(card_of(bench.device), load.heads.size, format_of(bench.dtype, load.form.number))
    rows = load.sequences * load.part.count
    query = torch.randn(rows, load.heads.queries, load.heads.size, device=bench.device).to(bench.dtype)
    many = TritonKernels(bench.device, deterministic)._multiprocessors
    plans = {}

    def run(tuning: AttentionTuning | None) -> object:
        sizes = (tuning or usual).rows(deterministic)
        if sizes not in plans:
            plans[sizes] = plan_of(load.parts, tables, load.heads, sizes)
        return paged_attention(
            query, cache, plans[sizes], load.heads.size**-0.5, None,
            deterministic=deterministic, tuning=tuning, multiprocessors=many,
        )  # fmt: skip

    run(None)
    return run


def cases(bench: Bench) -> Iterator[Case]:
    """Our own, then others on keys that lie next to each other."""
    for load in loads(bench):
        yield Case(load.name, partial(_measured, bench, load))
    yield Case("torch", partial(_torch, bench))
    if not bench.dry:  # its compiler is not for the interpreter's machine
        yield Case("FlexAttention", partial(_flex, bench))


def _measured(bench: Bench, load: Load) -> list[Figure]:
    figures = []
    for deterministic in (False, True):
        run = prepared(bench, load, deterministic)
        amount, limit = load.cost(bench.dtype)
        seconds = seconds_of(bench, partial(run, None))
        target = DECODE_TARGET if limit == "copy" else PREFILL_TARGET
        name = load.name + (", deterministic" if deterministic else "")
        figures.append(bench.rated(name, seconds, amount, limit, None if deterministic else target))
    return figures


def _contiguous(bench: Bench, load: Load) -> tuple[Tensor, Tensor, Tensor]:
    def made(heads: int, length: int) -> Tensor:
        return torch.randn(load.sequences, heads, length, load.heads.size, device=bench.device, dtype=bench.dtype)

    length = load.part.length
    return made(load.heads.queries, load.part.count), made(load.heads.keys, length), made(load.heads.keys, length)


def _plain(bench: Bench) -> list[Load]:
    return [load for load in loads(bench) if not load.form.scaled and load.part.count in (1, load.part.length)]


def _torch(bench: Bench) -> list[Figure]:
    """scaled_dot_product_attention, as it chooses among its own."""
    figures = []
    for load in _plain(bench):
        query, keys, values = _contiguous(bench, load)
        causal = load.part.count > 1
        work = partial(F.scaled_dot_product_attention, query, keys, values, is_causal=causal, enable_gqa=True)
        amount, limit = load.cost(bench.dtype)
        figures.append(bench.rated(f"SDPA {load.name}", seconds_of(bench, work), amount, limit, note="contiguous keys"))
    return figures


def _flex(bench: Bench) -> list[Figure]:
    compiled = torch.compile(flex_attention, dynamic=False)
    figures = []
    for load in _plain(bench):
        query, keys, values = _contiguous(bench, load)
        count, length = load.part.count, load.part.length
        mask = None
        if count > 1:
            mask = create_block_mask(lambda b, h, q, k: q >= k, None, None, count, length, device=bench.device)
        work = partial(compiled, query, keys, values, block_mask=mask, enable_gqa=True)
        work()
        amount, limit = load.cost(bench.dtype)
        note = "contiguous keys"
        figures.append(bench.rated(f"Flex {load.name}", seconds_of(bench, work), amount, limit, note=note))
    return figures
