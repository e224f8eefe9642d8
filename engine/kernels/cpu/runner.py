"""Plan of a batch → one call of the compiled step → logits of the rows that are sampled, or tokens."""

from __future__ import annotations

import ctypes
import weakref
from array import array
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import accumulate, chain, cycle

import torch
from torch import Tensor

from engine.config import EngineConfig
from engine.kernels.cpu.library import Span, Step, loaded
from engine.kernels.cpu.packing import PANEL, PackedModel
from engine.kernels.cpu.screening import Screening, largest_alone
from engine.kv.format import BlockCopy, copy_blocks, format_of, scrub
from engine.kv.shape import GroupShape
from engine.model.spec import ModelSpec
from engine.model.weights import ModelWeights
from engine.quant.quantise import weight_formats
from engine.scheduler.step_plan import Chunk
from engine.step_result import StepResult, rows_wanted


class CompiledRunner:
    """Runs steps of one model in C. A row's numbers depend on its own sequence alone, to the bit, whatever shares the
    step and however a prompt is cut."""

    def __init__(
        self,
        spec: ModelSpec,
        weights: ModelWeights,
        config: EngineConfig,
        shapes: Sequence[GroupShape],
        context_length: int,
    ) -> None:
        self._library = loaded()
        self._block_size = config.block_size
        self._vocab_size = spec.vocab_size
        form = format_of(config.kv_dtype, weights.embedding.dtype)
        self._groups = len(shapes)
        self._packed = PackedModel(
            spec,
            weights,
            form,
            shapes,
            context_length,
            weight_formats(config.weight_dtype),
            tiled=bool(self._library.manta_tiles()),
        )
        self._model = ctypes.byref(self._packed.model)
        self._scratch = self._logits = torch.empty(0)
        screen = self._packed.model.screen.numbers
        self._screening = Screening(-(-screen.outputs // PANEL) if screen.weights else 0)
        self._counters = torch.zeros(spec.num_layers, dtype=torch.int64)
        self._pool = self._library.manta_pool_open(config.threads or _usable_threads())
        # What is left to torch, sampling, is short. Its threads would go on spinning for milliseconds after each
        # operation, on the cores that the kernels' threads need for the next step.
        torch.set_num_threads(1)
        if self._pool is None:
            raise OSError("no threads could be started for the compiled kernels")
        self._end_threads = weakref.finalize(self, self._library.manta_pool_close, self._pool)

    def run(self, chunks: Iterable[Chunk]) -> StepResult:
        """Computes the chunks, at most one of each sequence."""
        planned = list(chunks)
        rows = sum(chunk.length for chunk in planned)
        wanted = array("q", rows_wanted(planned))
        largest = array("q", bytes(len(wanted) * 8)) if largest_alone(planned) else None
        screened = largest is not None and self._screening.asked(len(wanted))
        if largest is None:
            logits = torch.empty(len(wanted), self._vocab_size)
        else:
            logits = self._logits_for(len(wanted), screened)
        sound = (ctypes.c_uint8 * rows)()
        # Whoever owns the memory must live until the call has returned.
        tables = [array("i", chunk.sequence.tables[g].blocks) for g in range(self._groups) for chunk in planned]
        tokens = array("q", chain.from_iterable(c.tokens for c in planned))
        positions = array("q", chain.from_iterable(range(c.start, c.end) for c in planned))
        slots = array("q", chain.from_iterable(self._slots(c, g) for g in range(self._groups) for c in planned))
        spans = self._spans(planned, tables)
        step = Step(
            tokens=_longs(tokens),
            positions=_longs(positions),
            slots=_longs(slots),
            rows=rows,
            spans=spans,
            spans_count=len(planned),
            wanted=_longs(wanted),
            wanted_count=len(wanted),
            logits=logits.data_ptr(),
            sound=sound,
            largest=None if largest is None else _longs(largest),
            screened=screened,
        )
        scratch = self._scratch_for(rows)
        self._library.manta_step(
            self._model, ctypes.byref(step), scratch.data_ptr(), self._counters.data_ptr(), self._pool
        )
        if screened:
            self._screening.took(step.multiplied / self._screening.panels)
        if largest is None:
            return StepResult.of(planned, logits, bytes(sound))
        return StepResult.told(planned, largest, bytes(sound))

    def scrub(self, blocks: Sequence[Sequence[int]]) -> None:
        """Fills blocks of each group with zeros: zero times NaN is NaN, so blocks that hold no numbers must not come to
        another sequence."""
        scrub(self._packed.cache, self._packed.groups, blocks)

    def copy(self, copies: Sequence[BlockCopy]) -> None:
        """Copies the contents of blocks, in this order."""
        copy_blocks(self._packed.cache, self._packed.groups, copies)

    def close(self) -> None:
        """Ends the threads; the runner is of no use afterwards. May be called again."""
        self._end_threads()

    def _spans(self, chunks: list[Chunk], tables: list[array[int]]) -> ctypes.Array[Span]:
        spans = (Span * len(tables))()
        starts = list(accumulate((chunk.length for chunk in chunks), initial=0))
        of_each_group = cycle(zip(chunks, starts, strict=False))
        for span, table, (chunk, row) in zip(spans, tables, of_each_group, strict=False):
            span.row, span.rows, span.position = row, chunk.length, chunk.start
            span.table = ctypes.cast(table.buffer_info()[0], ctypes.POINTER(ctypes.c_int32))
        return spans

    def _slots(self, chunk: Chunk, group: int) -> Iterable[int]:
        size, blocks = self._block_size, chunk.sequence.tables[group].blocks
        return (blocks[at // size] * size + at % size for at in range(chunk.start, chunk.end))

    def _logits_for(self, rows: int, screened: bool) -> Tensor:
        """Where logits may lie that nobody will see; screened ones are no more than a bound for each panel."""
        floats = rows * (self._screening.panels if screened else self._vocab_size)
        if len(self._logits) < floats:
            self._logits = torch.empty(floats)
        return self._logits

    def _scratch_for(self, rows: int) -> Tensor:
        """Grows to the largest step so far and stays."""
        floats = int(self._library.manta_scratch_floats(self._model, rows))
        if len(self._scratch) < floats:
            self._scratch = torch.empty(floats)
        return self._scratch


@cache
def _usable_threads() -> int:
    """Torch's own number, as it was before the first runner asked."""
    return torch.get_num_threads()


def _longs(values: array[int]) -> ctypes._Pointer[ctypes.c_int64]:
    return ctypes.cast(values.buffer_info()[0], ctypes.POINTER(ctypes.c_int64))
