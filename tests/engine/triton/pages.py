"""Random paged caches, and plans for ragged sequences over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engine.kernels.triton.attention_metadata import PagedPlan
from engine.kernels.triton.tiles import most_tiles, tiles_of
from engine.kv.format import KVFormat, KVPages, quantise

NOTHING = 0
"""The block that no sequence has."""


@dataclass(frozen=True, slots=True)
class Part:
    """What one sequence computes in a step: its last ``count`` tokens of ``length``."""

    count: int
    length: int


@dataclass(frozen=True, slots=True)
class Pages:
    """A cache, and where sequences lie in it: ``tables`` [sequences, width] int32 on the CPU. What no sequence fills is
    no number: all of block 0, which is where a kernel would read that masks a block's id but not its content."""

    cache: KVPages
    tables: Tensor

    @property
    def block_size(self) -> int:
        return self.cache.numbers.shape[2]


def make_pages(
    lengths: Sequence[int],
    form: KVFormat,
    kv_heads: int,
    block_size: int,
    head_dim: int,
    device: torch.device,
    seed: int = 0,
) -> Pages:
    """Random keys and values for sequences of ``lengths`` tokens, in blocks of random order."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [-(-length // block_size) for length in lengths]
    order = (torch.randperm(sum(sizes), generator=generator) + NOTHING + 1).to(torch.int32).split(sizes)
    tables = torch.full((len(sizes), max(sizes)), NOTHING, dtype=torch.int32)
    content = torch.randn(sum(sizes) + 1, 2 * kv_heads, block_size, head_dim, generator=generator)
    content[NOTHING] = torch.nan
    for row, (length, blocks) in enumerate(zip(lengths, order, strict=True)):
        tables[row, : len(blocks)] = blocks
        if length % block_size:
            content[int(blocks[-1]), :, length % block_size :] = torch.nan
    if not form.scaled:
        return Pages(KVPages(content.to(form.number).to(device)), tables)
    numbers, scales = quantise(content, form)
    return Pages(KVPages(numbers.to(device), scales.to(device)), tables)


def make_plan(
    pages: Pages,
    parts: Sequence[Part],
    *,
    window: int | None = None,
    few_queries: int = 4,
    tile_queries: int = 16,
    padding: int = 0,
    longest: int | None = None,
) -> PagedPlan:
    """The plan of a step of ``parts``, one for each sequence, with so many rows, sequences and tiles of padding."""
    device, size = pages.cache.numbers.device, pages.block_size
    counts = [part.count for part in parts] + [0] * padding
    lengths = [part.length for part in parts] + [0] * padding
    rows = sum(counts)
    positions = [p for part in parts for p in range(part.length - part.count, part.length)] + [-1] * padding
    sequences = [s for s, part in enumerate(parts) for _ in range(part.count)] + [0] * padding
    tables = torch.cat((pages.tables, pages.tables.new_zeros(padding, pages.tables.shape[1])))
    for row, part in enumerate(parts):
        tables[row, -(-part.length // size) :] = NOTHING
        if window is not None:
            tables[row, : max(0, part.length - part.count - window + 1) // size] = NOTHING
    few = sum(0 < count <= few_queries for count in counts)
    most = most_tiles(rows, len(parts), tile_queries)
    tiles = tiles_of(counts, lengths, few_queries, tile_queries, few + padding, most + padding)

    def on_device(values: Sequence[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int32, device=device)

    return PagedPlan(
        positions=on_device(positions),
        sequences=on_device(sequences),
        tables=tables.to(device),
        starts=on_device((np.cumsum(counts) - counts).tolist()),
        counts=on_device(counts),
        lengths=on_device(lengths),
        few_tiles=torch.from_numpy(tiles.few).to(device),
        tiles=torch.from_numpy(tiles.others).to(device),
        rotation=None,
        window=window,
        longest=longest or max(lengths),
        few_queries=few_queries,
        tile_queries=tile_queries,
    )


def content_of(pages: Pages, sequence: int, length: int) -> tuple[Tensor, Tensor]:
    """Keys and values [kv_heads, length, head_dim] float64 of a sequence, on the CPU."""
    blocks = pages.tables[sequence, : -(-length // pages.block_size)].long()
    held = pages.cache.numbers.cpu().float()[blocks].double()
    if pages.cache.scales is not None:
        held *= pages.cache.scales.cpu()[blocks].double().unsqueeze(-1)
    held = held.transpose(0, 1).flatten(1, 2)[:, :length]
    keys, values = held.chunk(2, 0)
    return keys, values


def dense_attention(
    query: Tensor, pages: Pages, parts: Sequence[Part], scale: float, score_cap: float | None, window: int | None
) -> Tensor:
    """Attention of ``query`` [rows, heads, head_dim] as it is defined, in float64 on the CPU."""
    outputs: list[Tensor] = []
    rows = query.double().cpu().split([part.count for part in parts])
    for sequence, (part, own) in enumerate(zip(parts, rows, strict=True)):
        keys, values = (
            x.repeat_interleave(own.shape[1] // x.shape[0], 0) for x in content_of(pages, sequence, part.length)
        )
        scores = own.transpose(0, 1) @ keys.transpose(1, 2) * scale
        if score_cap is not None:
            scores = score_cap * (scores / score_cap).tanh()
        at = torch.arange(part.length)
        behind = at[part.length - part.count :].unsqueeze(1) - at
        seen = (behind >= 0) & (behind < (window or part.length))
        outputs.append((scores.masked_fill(~seen, -torch.inf).softmax(-1) @ values).transpose(0, 1))
    return torch.cat(outputs)
