"""``CompiledRunner``: runs each step of a batch in one call of the compiled C code. Returns the logits of sampled rows,
or tokens."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Iterable, Sequence
from functools import cache

import torch
from torch import Tensor

from engine.config import EngineConfig
from engine.kernels.cpu.library import BFLOAT16, FLOAT32, loaded
from engine.kernels.cpu.packing import PANEL, PackedModel
from engine.kernels.cpu.screening import MAX_ROWS, MAX_ROWS_IN_TILES, Screening, largest_alone
from engine.kernels.cpu.step_arrays import StepArrays
from engine.kernels.cpu.tiles import Tiles
from engine.kv.format import BlockCopy, copy_blocks, format_of, scrub
from engine.kv.shape import GroupShape
from engine.model.spec import ModelSpec
from engine.model.weights import ModelWeights
from engine.quant.quantise import weight_formats
from engine.scheduler.step_plan import Chunk
from engine.step_result import StepResult, rows_wanted


class CompiledRunner:
    """Runs steps of one model in C. The result of a row depends, bit for bit, on its own sequence alone, not on the
    rest of the batch nor on how its prompt is cut into chunks."""

    def __init__(
        self,
        spec: ModelSpec,
        weights: ModelWeights,
        config: EngineConfig,
        shapes: Sequence[GroupShape],
        context_length: int,
    ) -> None:
        self._library = loaded()
        tiled = bool(self._library.manta_tiles())
        self._vocab_size = spec.vocab_size
        form = format_of(config.kv_dtype, weights.embedding.dtype)
        self._arrays = StepArrays(len(shapes), config.block_size)
        self._packed = PackedModel(
            spec,
            weights,
            form,
            shapes,
            context_length,
            weight_formats(config.weight_dtype),
            tiled=tiled,
        )
        self._model = ctypes.byref(self._packed.model)
        self._scratch = self._logits = torch.empty(0)
        screen = self._packed.model.screen.numbers
        panels = -(-screen.outputs // PANEL) if screen.weights else 0
        head_in_tiles = tiled and self._packed.model.type == BFLOAT16
        self._screening = Screening(panels, MAX_ROWS_IN_TILES if head_in_tiles else MAX_ROWS)
        self.kernels = self._kernels()
        self._counters = torch.zeros(2 * spec.num_layers + 1, dtype=torch.int64)  # of manta_step
        self._pool = self._library.manta_pool_open(config.threads or _usable_threads())
        # What is left to torch, sampling, is short. Its threads would go on spinning for milliseconds after each
        # operation, on the cores that the kernels' threads need for the next step.
        torch.set_num_threads(1)
        if self._pool is None:
            raise OSError("no threads could be started for the compiled kernels")
        self._end_threads = weakref.finalize(self, self._library.manta_pool_close, self._pool)

    def run(self, chunks: Iterable[Chunk]) -> StepResult:
        """Runs the model on ``chunks``, which are one step, at most one per sequence. Returns the logits of sampled
        rows, or tokens, as ``StepRunner.run``."""
        planned = list(chunks)
        wanted = rows_wanted(planned)
        greedy = largest_alone(planned)
        step = self._arrays.step(planned, wanted, greedy)
        sound = _bytes_type(step.rows)()
        screened = greedy and self._screening.asked(len(wanted))
        # The memory that the step points to must live until the call has returned.
        logits = self._logits_for(len(wanted), screened) if greedy else torch.empty(len(wanted), self._vocab_size)
        scratch = self._scratch_for(step.rows)
        step.logits, step.sound, step.screened = logits.data_ptr(), sound, screened
        self._library.manta_step(
            self._model, ctypes.byref(step), scratch.data_ptr(), self._counters.data_ptr(), self._pool
        )
        if screened:
            self._screening.took(step.multiplied / self._screening.panels)
        if greedy:
            return StepResult.told(planned, self._arrays.largest(step), bytes(sound))
        return StepResult.of(planned, logits, bytes(sound))

    def scrub(self, blocks: Sequence[Sequence[int]]) -> None:
        """Fills KV blocks with zeros. ``blocks`` has a list of block ids for each group of layers. Blocks with NaN must
        not reach another sequence, since zero times NaN is NaN."""
        scrub(self._packed.cache, self._packed.groups, blocks)

    def copy(self, copies: Sequence[BlockCopy]) -> None:
        """Copies the contents of KV blocks, in the given order."""
        copy_blocks(self._packed.cache, self._packed.groups, copies)

    def check_health(self) -> None:
        """Does nothing: an operation that fails on a CPU leaves nothing behind by which others fail."""

    def close(self) -> None:
        """Ends the threads; the runner must not be used afterwards. May be called again."""
        self._end_threads()

    def _kernels(self) -> str:
        """Returns the name of the kernels, for metrics: with AMX tiles if the machine has them and the weights are
        whole numbers or bfloat16."""
        if self._packed.model.type == FLOAT32 and not self._packed.model.coded:
            return "compiled"
        return {Tiles.NONE: "compiled", Tiles.HARDWARE: "compiled-amx", Tiles.EMULATED: "compiled-amx-emulated"}[
            Tiles(self._library.manta_tiles())
        ]

    def _logits_for(self, rows: int, screened: bool) -> Tensor:
        """Returns the buffer for the logits of ``rows`` rows, which only the kernels read. ``screened``: it has one
        bound for each panel instead."""
        floats = rows * (self._screening.panels if screened else self._vocab_size)
        if self._logits.numel() < floats:
            self._logits = torch.empty(floats)
        return self._logits

    def _scratch_for(self, rows: int) -> Tensor:
        """Grows to the largest step so far and stays."""
        floats = int(self._library.manta_scratch_floats(self._model, rows))
        if self._scratch.numel() < floats:
            self._scratch = torch.empty(floats)
        return self._scratch


@cache
def _usable_threads() -> int:
    """Torch's own number, as it was before the first runner asked."""
    return torch.get_num_threads()


@cache
def _bytes_type(length: int) -> type[ctypes.Array[ctypes.c_uint8]]:
    """The type of ``length`` bytes. One that nothing keeps is garbage that only the collector finds."""
    return ctypes.c_uint8 * length
