"""``TritonRunner``: brings the plan of a step to the device as one array, runs the model, and samples on the device
where possible.

Decode steps run as CUDA graphs of padded sizes, and the next one is launched before the tokens of the last one have
been read (see ``ahead``). All other steps are launched kernel by kernel.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from engine.api import SamplingParams
from engine.config import EngineConfig
from engine.decode.sampling import Draw
from engine.device_health import check_device
from engine.kernels.triton.ahead import Ahead, following
from engine.kernels.triton.attention_metadata import PagedPlan
from engine.kernels.triton.attention_metadata_builder import Plans
from engine.kernels.triton.graphs import Graphs, Steps, Uncaptured
from engine.kernels.triton.layout import Sizes, blank, lay_out
from engine.kernels.triton.pending_step import Launch, launched, pinned, to_device
from engine.kernels.triton.sampling import DrawSettings, can_draw, sample_tokens, settings_of
from engine.kernels.triton.slots import Slots
from engine.kv.format import BlockCopy, copy_blocks, format_of, scrub
from engine.kv.shape import GroupShape, layers_by_group
from engine.model.decoder import Decoder
from engine.scheduler.step_plan import Chunk
from engine.step_result import StepResult, rows_wanted

_GREEDY = Draw(SamplingParams(temperature=0), 0, 0)
SHORTEST_BOUND = 1024
"""Tokens. The bounds on sequences for which steps are compiled and captured are so many times powers of two."""


class Size(NamedTuple):
    """The size of a captured step: the number of decodes (``rows``), a bound on the tokens of their sequences, and
    whether the distributions of some are cut by top-k and the like."""

    rows: int
    longest: int
    cuts: bool


class Buffers(NamedTuple):
    """The buffers that a captured step reads: ``numbers``, int32, in the layout of ``sizes``, and the sampling settings
    of its rows, ``fields`` of ``DrawSettings``."""

    sizes: Sizes
    numbers: Tensor
    fields: Tensor


class TritonRunner:
    """Runs the steps of one model on one device; ``model`` has TritonKernels. With tensor parallelism it samples
    nothing, since only the first rank has all logits."""

    kernels = "triton"

    def __init__(
        self, model: Decoder[PagedPlan], config: EngineConfig, shapes: Sequence[GroupShape], context_length: int
    ) -> None:
        spec, embedding = model.spec, model.weights.embedding
        if spec.learned_positions and context_length > spec.context_length:
            raise ValueError(f"the model has learned {spec.context_length} positions, not {context_length}")
        self._model = model
        self._device = embedding.device
        self._block_size = config.block_size
        self._context = context_length
        self._samples = config.tensor_parallel == 1
        self._groups = layers_by_group(spec)
        form = format_of(config.kv_dtype, embedding.dtype)
        # A page more than each pool owns stands for what is no longer seen.
        self._cache = model.new_cache(form, [shapes[group].blocks + 1 for group in self._groups], config.block_size)
        width = -(-context_length // config.block_size)
        self._slots = Slots(config.max_sequences, width, len(shapes), config.block_size)
        self._plans = Plans(model, form, config, width, context_length)
        # One place more, for what is sampled after padding.
        self._last = torch.zeros(config.max_sequences + 1, dtype=torch.int32, device=self._device)
        self._buffers: dict[int, Buffers] = {}
        self._decode_sizes = decode_sizes(config.max_sequences)
        largest = Size(self._decode_sizes[-1], self._bound(context_length), cuts=True)
        on_card = self._device.type == "cuda"
        self._steps: Steps[Size] = Graphs(self._decode, largest, self._device) if on_card else Uncaptured(self._decode)
        self._ahead: Ahead[Launch] | None = None

    @torch.inference_mode()
    def run(self, chunks: Iterable[Chunk]) -> StepResult:
        """Runs the model on ``chunks``, which are one step, at most one per sequence. Returns logits or sampled tokens,
        as ``StepRunner.run``."""
        planned = tuple(chunks)
        ahead, self._ahead = self._ahead, None
        # All of them, before any goes to the device: nobody who takes part may lose the row that has its last token.
        self._slots.place(planned)
        if not (self._samples and all(map(_samples_plainly, planned))):
            return self._run_for_logits(planned)
        covered = frozenset(chunk for chunk in planned if ahead is not None and ahead.covers(chunk))
        rest = tuple(chunk for chunk in planned if chunk not in covered)
        launches = [(ahead.launch, covered)] if ahead is not None and covered else []
        launches += [(self._launch(rest), frozenset(rest))] if rest else []
        self._look_ahead(planned)
        return _result(planned, launches)

    def scrub(self, blocks: Sequence[Sequence[int]]) -> None:
        """Fills KV blocks with zeros, so that NaN does not reach another sequence. ``blocks`` has a list of block ids
        for each group of layers."""
        scrub(self._cache, self._groups, blocks)

    def copy(self, copies: Sequence[BlockCopy]) -> None:
        """Copies the contents of KV blocks, in the given order."""
        copy_blocks(self._cache, self._groups, copies)

    def check_health(self) -> None:
        """Raises EngineDeadError if the device cannot be used any more."""
        check_device(self._device)

    def _run_for_logits(self, chunks: tuple[Chunk, ...]) -> StepResult:
        """Runs a step and returns its logits, for sampling that the kernels do not support."""
        part, longest = self._sent(chunks, len(rows_wanted(chunks)))
        plan = self._plans.of(part, longest)
        logits, sound = self._model.forward(part["tokens"], plan, self._cache, part["wanted"].long())
        return StepResult.of(chunks, logits, sound.tolist())

    def _look_ahead(self, chunks: tuple[Chunk, ...]) -> None:
        """Launches the decodes that follow."""
        follow = [following(chunk, self._block_size, self._context) for chunk in chunks]
        expected = tuple(chunk for chunk in follow if chunk is not None)
        if expected:
            self._ahead = Ahead.of(self._launch_decodes(expected, unknown=True), expected, self._block_size)

    def _launch(self, chunks: tuple[Chunk, ...]) -> Launch:
        if all(chunk.length == 1 and chunk.samples for chunk in chunks):
            return self._launch_decodes(chunks, unknown=False)
        sampling = tuple(chunk for chunk in chunks if chunk.samples)
        part, longest = self._sent(chunks, len(sampling))
        settings = self._settings([chunk.sequence.draw() for chunk in sampling]).to(self._device)
        return launched(chunks, sampling, self._compute(part, longest, settings), len(sampling))

    def _launch_decodes(self, chunks: tuple[Chunk, ...], unknown: bool) -> Launch:
        """One token of each sequence, padded to a size that is captured. With ``unknown``, the token that the device
        has sampled last."""
        rows = next(size for size in self._decode_sizes if size >= len(chunks))
        draws = [chunk.sequence.draw(ahead=int(unknown)) for chunk in chunks]
        # Of all rows: what one of padding was drawn by before may not be in this size.
        settings = self._settings(draws + [_GREEDY] * (rows - len(draws)))
        size = Size(rows, self._bound(max(chunk.end for chunk in chunks)), settings.cuts)
        buffers = self._buffers_of(rows)
        self._steps.prepare(size, self._clear)
        slots = self._place(chunks)
        numbers = lay_out(chunks, slots, unknown, buffers.sizes, self._plans.tiles)
        buffers.numbers.copy_(pinned(torch.from_numpy(numbers), self._device), non_blocking=True)
        buffers.fields.copy_(pinned(settings.fields, self._device), non_blocking=True)
        return launched(chunks, chunks, self._steps.run(size), rows)

    def _decode(self, size: Size) -> Tensor:
        """What a graph captures."""
        buffers = self._buffers_of(size.rows)
        settings = DrawSettings(buffers.fields, size.cuts)
        return self._compute(buffers.sizes.parts(buffers.numbers), size.longest, settings)

    def _compute(self, part: dict[str, Tensor], longest: int, settings: DrawSettings) -> Tensor:
        """Tokens after the wanted rows, -1 where there is none, and whether each row is sound: int32 [wanted + rows].
        Nothing here waits for the device."""
        tokens = torch.where(part["tokens"] < 0, self._last[part["sequences"]], part["tokens"])
        plan = self._plans.of(part, longest)
        logits, sound = self._model.forward(tokens, plan, self._cache, part["wanted"].long())
        drawn = torch.where(logits.amax(-1).isfinite(), sample_tokens(logits, settings), -1).int()
        # A row that nothing could be drawn from ends its sequence, but its next step may be under way by then.
        self._last.index_copy_(0, part["winners"].long(), drawn.clamp(min=0))
        return torch.cat((drawn, sound.int()))

    def _sent(self, chunks: tuple[Chunk, ...], wanted: int) -> tuple[dict[str, Tensor], int]:
        """A step on the device, in its own size, and a bound on the tokens of its sequences."""
        slots = self._place(chunks)
        sizes = self._plans.sizes(chunks, wanted, self._slots.count)
        numbers = to_device(lay_out(chunks, slots, False, sizes, self._plans.tiles), self._device)
        return sizes.parts(numbers), self._bound(max(chunk.end for chunk in chunks))

    def _place(self, chunks: tuple[Chunk, ...]) -> list[int]:
        """Slots of the chunks' sequences, whose tables are brought up to date on the device."""
        slots = self._slots.place(chunks)
        for group, changes in enumerate(self._slots.changes(chunks)):
            self._plans.write(group, to_device(changes, self._device))
        self._slots.written(chunks)
        return slots

    def _buffers_of(self, rows: int) -> Buffers:
        """Those of captured steps of so many decodes."""
        if rows not in self._buffers:
            sizes = Sizes(rows, rows, rows, 0, self._slots.count)
            numbers = to_device(blank(sizes, self._plans.tiles), self._device)
            fields = self._settings([_GREEDY] * rows).to(self._device).fields
            self._buffers[rows] = Buffers(sizes, numbers, fields)
        return self._buffers[rows]

    def _clear(self, size: Size) -> None:
        """Leaves nothing but padding in the buffers of a size."""
        buffers = self._buffers_of(size.rows)
        buffers.numbers.copy_(torch.from_numpy(blank(buffers.sizes, self._plans.tiles)))
        buffers.fields.copy_(self._settings([_GREEDY] * size.rows).fields)

    def _settings(self, draws: Sequence[Draw]) -> DrawSettings:
        return settings_of(draws, range(len(draws)), self._model.spec.vocab_size)

    def _bound(self, tokens: int) -> int:
        bound = SHORTEST_BOUND
        while bound < tokens:
            bound *= 2
        return bound


def decode_sizes(most: int) -> list[int]:
    """Returns the batch sizes, up to ``most``, for which a decode step is captured as a CUDA graph: few sizes, with
    little padding between them."""
    sizes = [1, 2, 4, *range(8, 64, 8), *range(64, 256, 16), *range(256, most + 32, 32)]
    smaller = [size for size in sizes if size < most]
    return [*smaller, most]


def _samples_plainly(chunk: Chunk) -> bool:
    """Whether the device can draw what follows the chunk, if anything does."""
    sequence = chunk.sequence
    if chunk.draft or chunk.scored:
        return False
    more = sequence.sampling.records_logprobs or sequence.candidates or sequence.branches
    bound = sequence.rules is not None or sequence.grammar is not None
    return not chunk.samples or (not (more or bound) and can_draw(sequence.sampling))


def _result(chunks: tuple[Chunk, ...], launches: Sequence[tuple[Launch, frozenset[Chunk]]]) -> StepResult:
    """What launches found, each of the chunks named beside it; it may have computed others as well."""
    tokens: dict[Chunk, int] = {}
    unsound: set[Chunk] = set()
    for launch, meant in launches:
        found, faulty = launch.read()
        tokens |= {chunk: token for chunk, token in found.items() if chunk in meant}
        unsound |= faulty & meant
    sampled = [chunk for chunk in chunks if chunk.samples]
    bad = [chunk for chunk in chunks if chunk in unsound]
    return StepResult(sampled, torch.empty(0), bad, (), [tokens[chunk] for chunk in sampled])
