"""A smaller model that guesses for a larger one (Leviathan et al. 2023; Chen et al. 2023).

It keeps its keys and values in blocks of the same numbers as the larger one, so prefixes, forks and preemption are
nobody's business but the scheduler's. How many tokens of a sequence it has read is counted with the sequence; what it
has missed, it reads before its next guess. Nothing that it writes can change an answer: its guesses are computed by the
larger model, and kept as far as they are what that would have drawn anyway. It draws with the same random numbers, so
that where both models think alike they choose alike.
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

TO_COME = -1
"""In the place of a token that is yet to be guessed."""


class Drafter:
    """``runner`` runs the smaller model; ``chunk`` bounds the tokens of a sequence that it reads in a step."""

    def __init__(self, runner: StepRunner, chunk: int) -> None:
        self._runner = runner
        self._chunk = chunk

    @classmethod
    def of(
        cls, config: EngineConfig, spec: ModelSpec, shapes: Sequence[GroupShape], context_length: int
    ) -> Drafter | None:
        """What ``config.draft_model`` names, for a model of ``spec``; None without. Raises ValueError for one that
        cannot guess for it, and as loading does."""
        if config.draft_model is None:
            return None
        source = open_model(locate(config.draft_model))
        smaller = source.spec
        if smaller.vocab_size != spec.vocab_size:
            raise ValueError(f"draft_model has {smaller.vocab_size} tokens, and the model {spec.vocab_size}")
        if shapes[0].window is not None or windows_of(smaller) != (None,):
            raise ValueError("draft_model: layers of both models must see everything")
        if smaller.context_length < context_length:
            raise ValueError(f"draft_model has a context of {smaller.context_length} tokens, not {context_length}")
        device = torch.device(config.device)
        model = Decoder.load(source, getattr(torch, config.dtype), device, ReferenceKernels())
        # One thread: its steps are shorter than the hand-over to another. Not the runner that launches steps ahead:
        # guesses are taken back.
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
        """Copies the contents of blocks, as is done with the larger model's."""
        self._runner.copy([each for each in copies if each.group == 0])

    def scrub(self, blocks: Sequence[Sequence[int]]) -> None:
        """Fills blocks with zeros, likewise."""
        self._runner.scrub(blocks[:1])

    def fill(self, chunks: Sequence[Chunk]) -> list[Chunk]:
        """Guesses the tokens that are to come in ``chunks``. Of a sequence of which too much has been missed a part is
        read, and nothing guessed."""
        wanted = [chunk for chunk in chunks if chunk.draft and chunk.sequence.drafting]
        if not wanted:
            return list(chunks)
        twins = {chunk: _twin(chunk.sequence) for chunk in wanted}
        ready = self._catch_up(twins)
        longest = max((chunk.draft for chunk in ready), default=0)
        for place in range(1, longest):
            still = [chunk for chunk in ready if chunk.draft > place]
            self._guess([Chunk(twins[chunk], len(twins[chunk].tokens) - 1, 1) for chunk in still])
        for chunk in ready:
            sequence = chunk.sequence
            sequence.draft = twins[chunk].tokens[len(sequence.tokens) :]
            sequence.drafted = len(twins[chunk].tokens) - 1
        return self.without([chunk for chunk in twins if chunk not in ready], chunks)

    @staticmethod
    def without(unguessed: Sequence[Chunk], chunks: Sequence[Chunk]) -> list[Chunk]:
        """``chunks``, of which some are left without guesses."""
        for chunk in unguessed:
            chunk.sequence.draft, chunk.sequence.drafting = [], False
        return [chunk.kept(0) if chunk in unguessed else chunk for chunk in chunks]

    def _catch_up(self, twins: dict[Chunk, SequenceState]) -> list[Chunk]:
        """Reads what was missed; the chunks for which that was all, whose first guess there is then."""
        behind: list[Chunk] = []
        ready: list[Chunk] = []
        for chunk, twin in twins.items():
            start = min(chunk.sequence.drafted, len(twin.tokens) - 1)
            length = min(len(twin.tokens) - start, self._chunk)
            behind.append(Chunk(twin, start, length))
            if start + length == len(twin.tokens):
                ready.append(chunk)
        self._guess(behind)
        for chunk, read in zip(twins, behind, strict=True):
            chunk.sequence.drafted = read.end
        return ready

    def _guess(self, chunks: Iterable[Chunk]) -> None:
        """Runs ``chunks``, and adds to their sequences the tokens that follow."""
        result = self._runner.run(chunks)
        draws = [chunk.sequence.draw() for chunk in result.sampled]
        tokens = result.tokens
        if tokens is None:
            tokens = draw_tokens(result.logits, draws, range(len(draws))) if draws else ()
        for chunk, token in zip(result.sampled, tokens, strict=True):
            chunk.sequence.tokens.append(max(token, 0))  # without a finite logit any guess is as good


def _twin(sequence: SequenceState) -> SequenceState:
    """The same tokens in the same blocks, to be made longer at will."""
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
