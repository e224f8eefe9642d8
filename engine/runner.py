"""The torch runner: turns the chunks of a step into tensors, runs the model, and returns the logits of the rows that a
token is sampled after.

The rows of a step are ordered: first decodes, grouped by the number of KV pages (blocks) that they attend over, then
chunks of prompts. Sliding-window layers use the same groups, but read only the pages inside the window.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, groupby

import torch
from torch import Tensor

from engine.config import EngineConfig
from engine.device_health import check_device
from engine.kernels.interface import AttentionGroup, AttentionPlan, StepPlan
from engine.kv.format import BlockCopy, copy_blocks, format_of, scrub
from engine.kv.shape import GroupShape, layers_by_group, windows_of
from engine.model.decoder import Decoder
from engine.model.rope import rope_tables
from engine.model.spec import RopeSpec
from engine.scheduler.step_plan import Chunk
from engine.step_result import StepResult, rows_wanted

_MIN_DECODE_PAGES = 4
"""Decodes are padded to at least this number of pages, beyond it to powers of two and the middles between them. That
gives few groups, and at most half as many pages again to read."""


class Runner:
    """Runs steps with torch (vLLM's model runner). Holds the model and the tensors of its KV cache."""

    kernels = "torch"

    def __init__(
        self, model: Decoder[AttentionPlan], config: EngineConfig, shapes: Sequence[GroupShape], context_length: int
    ) -> None:
        self.model = model
        self._block_size = config.block_size
        self._groups = layers_by_group(model.spec)
        # One page more than each pool owns. It is never written, and stands for padding and pages outside the window.
        self._zero_pages = [shape.blocks for shape in shapes]
        form = format_of(config.kv_dtype, model.weights.embedding.dtype)
        pages = [self._zero_pages[group] + 1 for group in self._groups]
        self._cache = model.new_cache(form, pages, config.block_size)
        self._heads = torch.arange(2 * model.spec.num_kv_heads, device=model.weights.embedding.device)
        self._device = model.weights.embedding.device
        self._dtype = model.weights.embedding.dtype
        if model.spec.learned_positions and context_length > model.spec.context_length:
            raise ValueError(f"the model has learned {model.spec.context_length} positions, not {context_length}")
        self._windows = windows_of(model.spec)
        self._ropes = {
            kind.rope: self._tables(kind.rope, context_length) for kind in model.spec.kinds if kind.rope is not None
        }

    @torch.inference_mode()
    def run(self, chunks: Iterable[Chunk]) -> StepResult:
        """Runs the model on ``chunks``, which are one step, at most one per sequence, and writes their keys and values
        to the KV cache.

        Returns the logits of the chunks that sample, in the order of ``StepResult.sampled`` and not of ``chunks``. This
        runner samples no tokens. NaN and Inf raise nothing: their chunks are in ``StepResult.unsound``.
        """
        ordered = sorted(chunks, key=self._group_key)
        tokens = self._int_tensor(chain.from_iterable(c.tokens for c in ordered))
        wanted = None if all(c.length == 1 and c.samples for c in ordered) else self._int_tensor(rows_wanted(ordered))
        logits, sound = self.model.forward(tokens, self._plan(ordered), self._cache, wanted)
        return StepResult.of(ordered, logits, sound.tolist())

    def scrub(self, blocks: Sequence[Sequence[int]]) -> None:
        """Fills KV blocks with zeros; ``blocks`` has a list of block ids for each group of layers. Needed after NaN or
        Inf: attention multiplies masked values by zero, and zero times NaN is NaN, so the blocks must not reach another
        sequence."""
        scrub(self._cache, self._groups, blocks)

    def copy(self, copies: Sequence[BlockCopy]) -> None:
        """Copies the contents of KV blocks, in the given order."""
        copy_blocks(self._cache, self._groups, copies)

    def check_health(self) -> None:
        """Raises EngineDeadError if the device cannot be used any more."""
        check_device(self._device)

    def _group_key(self, chunk: Chunk) -> tuple[bool, int]:
        """Sort key of a chunk: decodes by their padded number of pages, and prompts after them."""
        return chunk.length > 1, self._padded_pages(chunk) if chunk.length == 1 else 0

    def _padded_pages(self, chunk: Chunk) -> int:
        """Returns the pages that a decode attends over. A function of its own length only, so that its results do not
        depend on the rest of the batch."""
        pages = max(_MIN_DECODE_PAGES, -(-chunk.end // self._block_size))
        power = 1 << (pages - 1).bit_length()
        middle = power // 4 * 3
        return middle if pages <= middle else power

    def _plan(self, chunks: list[Chunk]) -> StepPlan[AttentionPlan]:
        """Returns the positions of the rows, and the inputs of attention for each kind of layer."""
        positions = self._int_tensor(chain.from_iterable(range(c.start, c.end) for c in chunks))
        rotations = {rope: self._rotation(tables, positions) for rope, tables in self._ropes.items()}
        slots = {window: self._slots(chunks, positions, group) for group, window in enumerate(self._windows)}
        groups = {window: self._attending(chunks, group) for group, window in enumerate(self._windows)}
        kinds = self.model.spec.kinds
        plans = (AttentionPlan(rotations[k.rope] if k.rope else None, slots[k.window], groups[k.window]) for k in kinds)
        return StepPlan(positions, tuple(plans))

    def _attending(self, chunks: list[Chunk], number: int) -> tuple[AttentionGroup, ...]:
        """Returns the attention groups of a step for the layers of KV cache group ``number``."""
        groups: list[AttentionGroup] = []
        row = 0
        for (prompt, pages), members in groupby(chunks, self._group_key):
            for group in [[member] for member in members] if prompt else [list(members)]:
                groups.append(
                    self._prompt(group[0], row, number) if prompt else self._decodes(group, pages, row, number)
                )
                row += sum(chunk.length for chunk in group)
        return tuple(groups)

    def _slots(self, chunks: list[Chunk], positions: Tensor, number: int) -> Tensor:
        """Returns the cache slot of each row and head, [rows * 2 * kv_heads] int64, that keys and values are written
        to."""
        size = self._block_size
        tables = ((c, c.sequence.tables[number].blocks) for c in chunks)
        blocks = self._int_tensor(table[at // size] for c, table in tables for at in range(c.start, c.end))
        heads = blocks.unsqueeze(1) * len(self._heads) + self._heads
        return (heads * size + (positions % size).unsqueeze(1)).view(-1)

    def _pages(self, blocks: list[int], sequences: int) -> Tensor:
        """Returns the page of each sequence, head and block, [sequences * 2 * kv_heads * blocks] int64. ``blocks``
        lists the same number of blocks for each of ``sequences`` sequences."""
        pages = self._int_tensor(blocks).view(sequences, 1, -1) * len(self._heads)
        return (pages + self._heads.unsqueeze(1)).view(-1)

    def _decodes(self, chunks: list[Chunk], pages: int, row: int, number: int) -> AttentionGroup:
        """Returns the attention group of decodes that are padded to ``pages`` pages; ``row`` is the first one's row."""
        window = self._windows[number]
        # The most pages that a window can touch, also where it begins at the start of a page, so that all are equal.
        width = pages if window is None else min(pages, -(-(window - 1) // self._block_size) + 1)
        table: list[int] = []
        ends: list[int] = []  # each sequence's length, counted from the start of its first page
        for chunk in chunks:
            first = self._first_page(chunk, window)
            used = chunk.sequence.tables[number].blocks[first : -(-chunk.end // self._block_size)]
            table += used
            table += [self._zero_pages[number]] * (width - len(used))
            ends.append(chunk.end - first * self._block_size)
        keys = torch.arange(width * self._block_size, device=self._device)
        end = self._int_tensor(ends).unsqueeze(1)
        visible = keys < end if window is None else (keys < end) & (keys >= end - window)
        mask = self._mask(visible).view(len(chunks), 1, 1, -1)
        return AttentionGroup(row, len(chunks), 1, self._pages(table, len(chunks)), mask)

    def _prompt(self, chunk: Chunk, row: int, number: int) -> AttentionGroup:
        """Returns the attention group of one chunk of a prompt, which begins at row ``row``."""
        window = self._windows[number]
        first = self._first_page(chunk, window)
        blocks = chunk.sequence.tables[number].blocks[first : -(-chunk.end // self._block_size)]
        keys = torch.arange(len(blocks) * self._block_size, device=self._device) + first * self._block_size
        queries = torch.arange(chunk.start, chunk.end, device=self._device).unsqueeze(1)
        visible = keys <= queries if window is None else (keys <= queries) & (keys > queries - window)
        table = self._pages(blocks, 1)
        return AttentionGroup(row, 1, chunk.length, table, self._mask(visible).view(1, 1, chunk.length, -1))

    def _first_page(self, chunk: Chunk, window: int | None) -> int:
        """Returns the position of the page with the first key that the chunk's first token attends to."""
        return 0 if window is None else max(0, chunk.start - window + 1) // self._block_size

    def _tables(self, rope: RopeSpec, length: int) -> tuple[Tensor, Tensor]:
        """Returns the cosines and sines of rotary embeddings for positions up to ``length``."""
        cos, sin = rope_tables(rope, self.model.spec.head_dim, length)
        return cos.to(self._device, self._dtype), sin.to(self._device, self._dtype)

    def _rotation(self, tables: tuple[Tensor, Tensor], positions: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the cosines and sines for ``positions``."""
        cos, sin = tables
        return cos.index_select(0, positions).unsqueeze(1), sin.index_select(0, positions).unsqueeze(1)

    def _mask(self, visible: Tensor) -> Tensor:
        """Returns the attention bias: 0 where ``visible`` (bool), else -inf. A float tensor, since attention would
        convert a boolean one again in every layer."""
        hidden = torch.full(visible.shape, -torch.inf, dtype=self._dtype, device=self._device)
        return hidden.masked_fill_(visible, 0.0)

    def _int_tensor(self, values: Iterable[int]) -> Tensor:
        """Returns ``values`` as an int64 tensor on the model's device."""
        return torch.tensor(list(values), dtype=torch.int64, device=self._device)
