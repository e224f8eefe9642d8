"""Plan of a batch → tensors → forward → logits of the rows that are sampled.

Rows are laid out decodes first, grouped by how many pages they attend over, then chunks of prompts.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, groupby

import torch
from torch import Tensor

from engine.config import EngineConfig
from engine.kernels.interface import AttentionGroup, AttentionPlan
from engine.model.decoder import Decoder
from engine.model.rope import rope_tables
from engine.scheduler.plan import Chunk

_MIN_DECODE_PAGES = 4
"""Decodes are padded to so many pages and, above, to powers of two and the middles between them: few groups, and at
most half as much again to read."""


class Runner:
    """The model, its KV cache, and what is needed to lay a step out for them."""

    def __init__(self, model: Decoder, config: EngineConfig, context_length: int) -> None:
        self.model = model
        self._block_size = config.block_size
        self._zero_page = config.num_blocks  # one page more than the pool owns; never written
        self._cache = model.new_cache(config.num_blocks + 1, config.block_size)
        self._heads = torch.arange(2 * model.spec.num_kv_heads, device=model.weights.embedding.device)
        self._device = model.weights.embedding.device
        self._dtype = model.weights.embedding.dtype
        tables = rope_tables(model.spec.rope, model.spec.head_dim, context_length)
        self._cos, self._sin = (table.to(self._device, self._dtype) for table in tables)

    @torch.inference_mode()
    def run(self, chunks: Iterable[Chunk]) -> tuple[list[Chunk], Tensor]:
        """The chunks after which a token is to be sampled, and their logits [len, vocab] float32 in the same order."""
        ordered = sorted(chunks, key=self._group_key)
        tokens = self._int_tensor(chain.from_iterable(c.sequence.tokens[c.start : c.end] for c in ordered))
        wanted = None if all(c.length == 1 and c.samples for c in ordered) else self._last_rows(ordered)
        logits = self.model.forward(tokens, self._plan(ordered), self._cache, wanted)
        return [chunk for chunk in ordered if chunk.samples], logits

    def scrub(self, blocks: list[int]) -> None:
        """Fills blocks with zeros. What is masked still gets multiplied, and zero times NaN is NaN: blocks that hold
        no numbers must not come to another sequence."""
        index = self._int_tensor(blocks)
        for layer in self._cache:
            layer.index_fill_(0, index, 0)

    def _group_key(self, chunk: Chunk) -> tuple[bool, int]:
        """Single tokens by padded pages; prompts after them."""
        return chunk.length > 1, self._padded_pages(chunk) if chunk.length == 1 else 0

    def _padded_pages(self, chunk: Chunk) -> int:
        """A function of the sequence's own length only, so that its numbers do not depend on its neighbours."""
        pages = max(_MIN_DECODE_PAGES, -(-chunk.end // self._block_size))
        power = 1 << (pages - 1).bit_length()
        middle = power // 4 * 3
        return middle if pages <= middle else power

    def _last_rows(self, chunks: list[Chunk]) -> Tensor:
        rows: list[int] = []
        row = -1
        for chunk in chunks:
            row += chunk.length
            if chunk.samples:
                rows.append(row)
        return self._int_tensor(rows)

    def _plan(self, chunks: list[Chunk]) -> AttentionPlan:
        positions = self._int_tensor(chain.from_iterable(range(c.start, c.end) for c in chunks))
        groups: list[AttentionGroup] = []
        row = 0
        for (prompt, pages), members in groupby(chunks, self._group_key):
            for group in [[member] for member in members] if prompt else [list(members)]:
                groups.append(self._prompt(group[0], row) if prompt else self._decodes(group, pages, row))
                row += sum(chunk.length for chunk in group)
        return AttentionPlan(
            cos=self._cos.index_select(0, positions).unsqueeze(1),
            sin=self._sin.index_select(0, positions).unsqueeze(1),
            slots=self._slots(chunks, positions),
            groups=tuple(groups),
        )

    def _slots(self, chunks: list[Chunk], positions: Tensor) -> Tensor:
        size = self._block_size
        blocks = self._int_tensor(c.sequence.blocks[at // size] for c in chunks for at in range(c.start, c.end))
        heads = blocks.unsqueeze(1) * len(self._heads) + self._heads
        return (heads * size + (positions % size).unsqueeze(1)).view(-1)

    def _pages(self, blocks: list[int], sequences: int) -> Tensor:
        """Every head's page of the blocks of ``sequences`` sequences, each of which has as many."""
        pages = self._int_tensor(blocks).view(sequences, 1, -1) * len(self._heads)
        return (pages + self._heads.unsqueeze(1)).view(-1)

    def _decodes(self, chunks: list[Chunk], pages: int, row: int) -> AttentionGroup:
        table: list[int] = []
        for chunk in chunks:
            used = chunk.sequence.blocks[: -(-chunk.end // self._block_size)]
            table += used
            table += [self._zero_page] * (pages - len(used))
        keys = torch.arange(pages * self._block_size, device=self._device)
        visible = keys < self._int_tensor(chunk.end for chunk in chunks).unsqueeze(1)
        mask = self._mask(visible).view(len(chunks), 1, 1, -1)
        return AttentionGroup(row, len(chunks), 1, self._pages(table, len(chunks)), mask)

    def _prompt(self, chunk: Chunk, row: int) -> AttentionGroup:
        pages = -(-chunk.end // self._block_size)
        keys = torch.arange(pages * self._block_size, device=self._device)
        visible = keys <= torch.arange(chunk.start, chunk.end, device=self._device).unsqueeze(1)
        table = self._pages(chunk.sequence.blocks[:pages], 1)
        return AttentionGroup(row, 1, chunk.length, table, self._mask(visible).view(1, 1, chunk.length, -1))

    def _mask(self, visible: Tensor) -> Tensor:
        """Added to the scores. A float, since attention would convert booleans again in every layer."""
        hidden = torch.full(visible.shape, -torch.inf, dtype=self._dtype, device=self._device)
        return hidden.masked_fill_(visible, 0.0)

    def _int_tensor(self, values: Iterable[int]) -> Tensor:
        return torch.tensor(list(values), dtype=torch.int64, device=self._device)
