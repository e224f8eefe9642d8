"""``SpeculativeDecoding``: the draft tokens of an engine, from their proposal to what was learnt of them.

``Speculator`` decides how many draft tokens each sequence gets, and ``Drafter`` proposes them where prompt lookup finds
nothing. The target model verifies them (``forward.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self

from engine.config import EngineConfig
from engine.draft_model import Drafter
from engine.kv.format import BlockCopy
from engine.log_failure import log_failure
from engine.metrics import Phase, Recorder
from engine.scheduler.step_plan import Chunk
from engine.sequence import Sequence as SequenceState
from engine.speculation import Speculator


class SpeculativeDecoding:
    """The speculative decoding of one engine. ``drafter`` None: there is no draft model. ``clock`` returns monotonic
    seconds."""

    def __init__(
        self, speculator: Speculator, drafter: Drafter | None, recorder: Recorder, clock: Callable[[], float]
    ) -> None:
        self.speculator = speculator
        self._drafter = drafter
        self._recorder = recorder
        self._clock = clock
        self._drafting = False  # whether the draft model was to propose in this step

    @classmethod
    def of(cls, config: EngineConfig, drafter: Drafter | None, recorder: Recorder, clock: Callable[[], float]) -> Self:
        """Returns the speculative decoding of an engine with this ``config``, which has proposed nothing."""
        most = min(config.speculative_tokens, config.prefill_chunk - 1)
        return cls(Speculator(most, config.speculative_rows, drafter is not None), drafter, recorder, clock)

    def propose(self, running: Sequence[SequenceState]) -> None:
        """Sets the draft tokens of the ``running`` sequences, or placeholders for those of the draft model."""
        self.speculator.propose(running)

    def copy(self, copies: Sequence[BlockCopy]) -> None:
        """Copies the contents of KV blocks of the draft model too."""
        if self._drafter is not None:
            self._drafter.copy(copies)

    def scrub(self, blocks: Sequence[Sequence[int]]) -> None:
        """Fills KV blocks of the draft model with zeros too. ``blocks`` has a list of block ids for each group of
        layers."""
        if self._drafter is not None:
            self._drafter.scrub(blocks)

    def fill(self, chunks: list[Chunk]) -> list[Chunk]:
        """Returns ``chunks`` with the draft model's tokens in place of the placeholders, or without draft tokens if the
        draft model fails."""
        self._drafting = self.speculator.most > 0 and any(chunk.sequence.drafting for chunk in chunks)
        if not self._drafting or self._drafter is None:
            return chunks
        began = self._clock()
        try:
            chunks = self._drafter.fill(chunks)
        except Exception as error:  # noqa: BLE001 - a step does not need draft tokens
            log_failure("a draft", error)
            self.speculator.failed()
            chunks = self._drafter.drop_drafts([chunk for chunk in chunks if chunk.sequence.drafting], chunks)
        self._recorder.phase(Phase.DRAFT, self._clock() - began)
        return chunks

    def took(self, chunks: Sequence[Chunk], tokens: int, seconds: float) -> None:
        """Records that a step over ``chunks`` generated ``tokens`` tokens in ``seconds``, and removes their draft
        tokens."""
        if not self.speculator.most:
            return
        if self._drafting == any(chunk.sequence.drafting for chunk in chunks):  # else the draft model only caught up
            self.speculator.took(chunks, tokens, seconds)
        self.speculator.forget(chunks)
