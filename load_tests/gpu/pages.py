"""Random paged caches on the device, plans over them, and attention over them as it is defined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engine.kernels.triton.attention_metadata import PagedPlan
from engine.kernels.triton.runner import SHORTEST_BOUND
from engine.kernels.triton.tiles import most_tiles, queries_per_tile, tiles_of
from engine.kv.format import KVFormat, KVPages, quantise

BLOCK = 16  # tokens


@dataclass(frozen=True, slots=True)
class Heads:
    """Sizes of attention."""

    queries: int
    keys: int
    size: int


@dataclass(frozen=True, slots=True)
class Part:
    """What one sequence computes: its last ``count`` tokens of ``length``."""

    count: int
    length: int


def random_pages(parts: Sequence[Part], heads: Heads, form: KVFormat, device: torch.device) -> tuple[KVPages, Tensor]:
    """A cache that holds all ``parts``, and their tables [sequences, width] int32, blocks in random order."""
    sizes = [-(-part.length // BLOCK) for part in parts]
    order = torch.randperm(sum(sizes), device=device).int().split(sizes)
    tables = torch.full((len(parts), max(sizes)), sum(sizes), dtype=torch.int32, device=device)
    for row, blocks in enumerate(order):
        tables[row, : len(blocks)] = blocks
    shape = (sum(sizes) + 1, 2 * heads.keys, BLOCK, heads.size)
    if not form.scaled:
        return KVPages(torch.randn(shape, device=device, dtype=form.number)), tables
    done = [quantise(torch.randn((len(ids), *shape[1:]), device=device), form) for ids in
            torch.arange(shape[0]).split(4096)]  # fmt: skip
    numbers = torch.cat([part.view(torch.uint8) for part, _ in done]).view(form.number)
    return KVPages(numbers, torch.cat([scales for _, scales in done])), tables


def plan_of(
    parts: Sequence[Part],
    tables: Tensor,
    heads: Heads,
    rows: tuple[int, int],
    *,
    window: int | None = None,
    rotation: tuple[Tensor, Tensor] | None = None,
) -> PagedPlan:
    """The plan of a step of ``parts``; ``rows`` are those of tiles of few queries and of many."""
    few, many = (queries_per_tile(size, heads.queries, heads.keys) for size in rows)
    counts, lengths = [part.count for part in parts], [part.length for part in parts]
    small = sum(count <= few for count in counts)
    large = sum(-(-count // many) for count in counts if count > few)
    assert large <= most_tiles(sum(counts), len(parts), many)
    tiles = tiles_of(counts, lengths, few, many, small, large)
    bound = SHORTEST_BOUND
    while bound < max(lengths):
        bound *= 2

    def sent(values: object) -> Tensor:
        return torch.from_numpy(np.asarray(values, dtype=np.int32)).to(tables.device)

    return PagedPlan(
        positions=sent(np.concatenate([np.arange(part.length - part.count, part.length) for part in parts])),
        sequences=sent(np.repeat(np.arange(len(parts)), counts)),
        tables=tables,
        starts=sent(np.cumsum(counts) - counts),
        counts=sent(counts),
        lengths=sent(lengths),
        few_tiles=sent(tiles.few),
        tiles=sent(tiles.others),
        rotation=rotation,
        window=window,
        longest=bound,
        few_queries=few,
        tile_queries=many,
    )


def held(cache: KVPages, blocks: Tensor, length: int) -> Tensor:
    """Keys and values [2 kv_heads, length, head_dim] float64 of one sequence."""
    found = cache.numbers.view(torch.uint8)[blocks.long()].view(cache.numbers.dtype).double()
    if cache.scales is not None:
        found *= cache.scales[blocks.long()].double().unsqueeze(-1)
    return found.transpose(0, 1).flatten(1, 2)[:, :length]


def attended(
    query: Tensor, cache: KVPages, tables: Tensor, parts: Sequence[Part], scale: float, cap: float | None,
    window: int | None,
) -> Tensor:  # fmt: skip
    """Attention of ``query`` [rows, heads, head_dim] in float64."""
    outputs = []
    for row, (part, own) in enumerate(zip(parts, query.double().split([p.count for p in parts]), strict=True)):
        keys, values = held(cache, tables[row, : -(-part.length // BLOCK)], part.length).chunk(2)
        at = torch.arange(part.length, device=query.device)
        behind = at[part.length - part.count :].unsqueeze(1) - at
        seen = (behind >= 0) & (behind < (window or part.length))
        group = own.shape[1] // keys.shape[0]
        for head in range(keys.shape[0]):
            scores = own[:, head * group : (head + 1) * group].transpose(0, 1) @ keys[head].t() * scale
            scores = scores if cap is None else cap * (scores / cap).tanh()
            outputs.append((scores.masked_fill_(~seen, -torch.inf).softmax(-1) @ values[head]).transpose(0, 1))
    count = cache.numbers.shape[1] // 2
    return torch.cat([torch.cat(outputs[i : i + count], 1) for i in range(0, len(outputs), count)])
