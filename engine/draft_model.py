"""Speculative decoding with a draft model (Leviathan et al. 2023; Chen et al. 2023; vLLM's ``draft_model``
speculation).

The draft model's KV cache has as many blocks as the target model's, and uses the same block ids: one scheduler serves
both, also for prefix sharing, forks and preemption. ``Sequence.drafted`` counts the tokens whose KV the draft model has
computed; it computes the missing ones before it proposes. The target model verifies every draft token by drawing at its
position, and accepts it if it is the drawn token. So draft tokens never change an answer. The draft model draws with
the random numbers of the sequence, so that similar distributions give the same token.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch

from engine.backend import StepRunner, make_runner, uses_triton
from engine.config import EngineConfig
from engine.decode.sampling import draw_tokens
from engine.kernels.reference import ReferenceKernels
from engine.kv.format import BlockCopy
from engine.kv.shape import GroupShape, windows_of
from engine.model.decoder import Decoder
from engine.model.location import locate
from engine.model.source import open_model
from engine.model.spec import ModelSpec
from engine.scheduler.step_plan import Chunk
from engine.sequence import Sequence as SequenceState

DRAFT_PLACEHOLDER = -1
"""Placeholder for a draft token that the draft model has yet to propose."""


class Drafter:
    """Proposes draft tokens with a draft model (vLLM's draft proposer, SGLang's draft worker). ``runner`` runs the
    draft model. ``chunk`` is the most tokens of one sequence that it computes per step."""

    def __init__(self, runner: StepRunner, chunk: int) -> None:
        self._runner = runner
        self._chunk = chunk

    @classmethod
    def of(
        cls, config: EngineConfig, spec: ModelSpec, shapes: Sequence[GroupShape], context_length: int
    ) -> Drafter | None:
        """Loads the draft model that ``config.draft_model`` names, for a target model of ``spec``; returns None if
        there is none. Raises ValueError if it does not fit: its vocabulary size differs, its context is shorter, one of
        its layers has a sliding window, or all layers of the target have. Raises the errors of ``locate``,
        ``open_model``, ``Decoder.load`` and ``make_runner``."""
        if config.draft_model is None:
            return None
        source = open_model(locate(config.draft_model))
        draft_spec = source.spec
        if draft_spec.vocab_size != spec.vocab_size:
            raise ValueError(f"draft_model has {draft_spec.vocab_size} tokens, and the model {spec.vocab_size}")
        if shapes[0].window is not None or windows_of(draft_spec) != (None,):
            raise ValueError("draft_model: all its layers, and one of the model's, must have full attention")
        if draft_spec.context_length < context_length:
            raise ValueError(f"draft_model has a context of {draft_spec.context_length} tokens, not {context_length}")
        device = torch.device(config.device)
        model = Decoder.load(source, getattr(torch, config.dtype), device, ReferenceKernels())
        # One thread, because its steps are shorter than a hand-over to another thread. Not the Triton runner, which
        # launches steps ahead and could not take back a rejected draft token.
        own = replace(
            config,
            model=config.draft_model,
            draft_model=None,
            weight_dtype="auto",
            threads=1,
            tensor_parallel=1,
            kernels="torch" if uses_triton(config) else config.kernels,
        )
        return cls(make_runner(model, own, shapes[:1], context_length), config.prefill_chunk)

    def copy(self, copies: Sequence[BlockCopy]) -> None:
        """Copies the contents of KV blocks of the draft model, for those of ``copies`` that are of group 0, the only
        group of layers that it has. The others are ignored."""
        self._runner.copy([each for each in copies if each.group == 0])

    def scrub(self, blocks: Sequence[Sequence[int]]) -> None:
        """Fills KV blocks of the draft model with zeros. ``blocks`` has a list of block ids for each group of
        layers."""
        self._runner.scrub(blocks[:1])

    def fill(self, chunks: Sequence[Chunk]) -> list[Chunk]:
        """Runs the draft model for those of ``chunks`` whose sequences are ``drafting``, sets ``draft`` and ``drafted``
        of these sequences, and returns all chunks.

        Where the draft model lacks the KV of more tokens than it may compute in one step, it computes a part of them,
        and the chunk is returned without draft tokens."""
        wanted = [chunk for chunk in chunks if chunk.draft and chunk.sequence.drafting]
        if not wanted:
            return list(chunks)
        twins = {chunk: _twin(chunk.sequence) for chunk in wanted}
        ready = self._catch_up(twins)
        longest = max((chunk.draft for chunk in ready), default=0)
        for place in range(1, longest):
            still = [chunk for chunk in ready if chunk.draft > place]
            self._draw_drafts([Chunk(twins[chunk], len(twins[chunk].tokens) - 1, 1) for chunk in still])
        for chunk in ready:
            sequence = chunk.sequence
            sequence.draft = twins[chunk].tokens[len(sequence.tokens) :]
            sequence.drafted = len(twins[chunk].tokens) - 1
        return self.drop_drafts([chunk for chunk in twins if chunk not in ready], chunks)

    @staticmethod
    def drop_drafts(skipped: Sequence[Chunk], chunks: Sequence[Chunk]) -> list[Chunk]:
        """Drops the draft tokens of the chunks ``skipped``, also from their sequences, which stop ``drafting``. Returns
        all ``chunks``."""
        for chunk in skipped:
            chunk.sequence.draft, chunk.sequence.drafting = [], False
        return [chunk.kept(0) if chunk in skipped else chunk for chunk in chunks]

    def _catch_up(self, twins: dict[Chunk, SequenceState]) -> list[Chunk]:
        """Computes tokens that the draft model has not seen yet. Returns the chunks for which none are missing now;
        their first draft tokens have been drawn."""
        behind: list[Chunk] = []
        ready: list[Chunk] = []
        for chunk, twin in twins.items():
            start = min(chunk.sequence.drafted, len(twin.tokens) - 1)
            length = min(len(twin.tokens) - start, self._chunk)
            behind.append(Chunk(twin, start, length))
            if start + length == len(twin.tokens):
                ready.append(chunk)
        self._draw_drafts(behind)
        for chunk, read in zip(twins, behind, strict=True):
            chunk.sequence.drafted = read.end
        return ready

    def _draw_drafts(self, chunks: Iterable[Chunk]) -> None:
        """Runs the draft model on ``chunks``, and appends a drawn token to each sequence whose last token was
        computed."""
        result = self._runner.run(chunks)
        draws = [chunk.sequence.draw() for chunk in result.sampled]
        tokens = result.tokens
        if tokens is None:
            tokens = draw_tokens(result.logits, draws, range(len(draws))) if draws else ()
        for chunk, token in zip(result.sampled, tokens, strict=True):
            chunk.sequence.tokens.append(max(token, 0))  # negative: no logit was finite; any draft token will do


def _twin(sequence: SequenceState) -> SequenceState:
    """Returns a copy of ``sequence`` that shares its blocks; draft tokens are appended to the copy."""
    return SequenceState(
        request_id=sequence.request_id,
        tokens=list(sequence.tokens),
        prompt_length=sequence.prompt_length,
        sampling=sequence.sampling,
        cache_salt=sequence.cache_salt,
        seed=sequence.seed,
        max_tokens=sequence.max_tokens,
        tables=sequence.tables,
    )
