"""Runs the forward pass and the sampling of a step. If a batch fails, runs each of its sequences alone, so that only
those at fault fail."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from engine.backend import StepRunner
from engine.decode.beams import Candidates
from engine.decode.drawing import Drawn, SampleOutcome, draw_all
from engine.log_failure import log_failure
from engine.metrics import Phase, Recorder
from engine.scheduler.step_plan import Chunk
from engine.sequence import Sequence as SequenceState
from engine.step_result import StepResult

Outcome = tuple[Chunk, SampleOutcome]
"""A chunk that a token was sampled after, or that failed, with the result of sampling."""


class FailedDraftError(Exception):
    """A chunk with draft tokens failed, and they may be the cause. The sequence is to be computed again without
    them."""


class Forward:
    """Runs steps. Calls ``computed`` with each chunk that succeeded, cut to its accepted draft tokens, and the number
    of proposed ones. Calls ``scored`` with each chunk that has prompt tokens to score, and their logits."""

    def __init__(
        self,
        runner: StepRunner,
        recorder: Recorder,
        clock: Callable[[], float],
        computed: Callable[[Chunk, int], None],
        scored: Callable[[Chunk, Tensor], None],
    ) -> None:
        self._runner = runner
        self._recorder = recorder
        self._clock = clock
        self._computed = computed
        self._scored = scored

    def compute(self, chunks: Sequence[Chunk]) -> list[Outcome]:
        """Runs one step and appends accepted draft tokens to the sequences. If the whole batch fails, runs each chunk
        alone, without draft tokens. Returns the outcome of every chunk that a token was sampled after, and of every
        chunk that failed; the order need not be that of ``chunks``.

        Raises EngineDeadError if no step can be computed any more. No sequence is at fault then, and none has an
        outcome."""
        try:
            return self._apply(chunks, *self._run(chunks))
        except Exception as error:  # noqa: BLE001 - the fault boundary of a batch: the engine serves the others
            log_failure("a step", error)
            self._runner.check_health()
        outcomes: list[Outcome] = []
        for chunk in (chunk.kept(0) if chunk.draft else chunk for chunk in chunks):
            try:
                outcomes += self._apply([chunk], *self._run([chunk]))
            except Exception as error:  # noqa: BLE001 - the fault boundary of a sequence: it fails alone
                self._runner.check_health()
                outcomes.append((chunk, error))
        return outcomes

    def _run(self, chunks: Sequence[Chunk]) -> tuple[StepResult, list[SampleOutcome]]:
        """Runs one forward pass and samples. Changes nothing but the contents of the KV cache, so it may be
        repeated."""
        began = self._clock()
        result = self._runner.run(chunks)
        launched = self._clock()
        drawn = draw_all(result)
        self._recorder.phase(Phase.FORWARD, launched - began)
        self._recorder.phase(Phase.SAMPLE, self._clock() - launched)
        return result, drawn

    def _apply(self, chunks: Sequence[Chunk], result: StepResult, drawn: Sequence[SampleOutcome]) -> list[Outcome]:
        """Accepts draft tokens and reports the chunks that succeeded. Returns the outcomes of the step. A chunk with
        NaN or Inf fails even if no token is sampled after it, so that its KV is never shared. A failed chunk fails with
        FailedDraftError if it has draft tokens."""
        outcomes: dict[SequenceState, SampleOutcome] = {}
        for chunk, found in zip(result.sampled, drawn, strict=True):
            outcomes[chunk.sequence] = found
        for chunk in result.unsound:
            outcomes[chunk.sequence] = FloatingPointError()
        scored = {chunk.sequence: logits for chunk, logits in result.scored}
        for chunk in chunks:
            sequence = chunk.sequence
            outcome = outcomes.get(sequence)
            if isinstance(outcome, Exception):
                outcomes[sequence] = FailedDraftError() if chunk.draft else outcome
                continue
            try:
                if sequence in scored:
                    self._scored(chunk, scored[sequence])
                if chunk.draft:
                    self._accept_drafts(chunk, outcome)
                else:
                    self._computed(chunk, 0)
            except Exception as error:  # noqa: BLE001 - the fault boundary of a sequence: it fails alone
                outcomes[sequence] = error
        return [(chunk, outcomes[chunk.sequence]) for chunk in chunks if chunk.sequence in outcomes]

    def _accept_drafts(self, chunk: Chunk, drawn: list[Drawn] | Candidates | None) -> None:
        """Appends the accepted draft tokens of a chunk to its sequence, and reports the chunk as computed."""
        accepted = len(drawn) - 1 if isinstance(drawn, list) else 0
        kept = chunk.kept(accepted)
        chunk.sequence.tokens += chunk.sequence.draft[:accepted]
        self._computed(kept, chunk.draft)
