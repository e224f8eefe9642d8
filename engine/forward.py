"""One step of a batch, and of its sequences one by one when the batch fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from engine.backend import StepRunner
from engine.decode.beams import Candidates
from engine.decode.drawing import Drawn, Found, draw_all
from engine.failures import log_failure
from engine.metrics import Phase, Recorder
from engine.scheduler.step_plan import Chunk
from engine.step_result import StepResult

Outcome = tuple[Chunk, Found]
"""A chunk after which tokens were drawn, with them, or one that failed. Several tokens: the first ones of branches, or
those of a draft that were right and the one after them; or the candidates of a beam."""


class SpoiltGuessError(Exception):
    """Something failed in a sequence that was computed with guesses: they may be the reason. It is to be computed anew
    without."""


class Forward:
    """Runs steps. ``computed`` is called for each chunk that stands, ``scored`` with the logits of those of a prompt
    that are to be scored."""

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
        """Runs ``chunks``; what is drawn after them, and what failed."""
        try:
            return self._apply(chunks, *self._run(chunks))
        except Exception as error:  # noqa: BLE001 - the fault boundary of a batch: the engine serves the others
            log_failure("a step", error)
        outcomes: list[Outcome] = []
        for chunk in (chunk.kept(0) if chunk.draft else chunk for chunk in chunks):
            try:
                outcomes += self._apply([chunk], *self._run([chunk]))
            except Exception as error:  # noqa: BLE001 - the fault boundary of a sequence: it fails alone
                outcomes.append((chunk, error))
        return outcomes

    def _run(self, chunks: Sequence[Chunk]) -> tuple[StepResult, list[Found]]:
        """One forward pass, and what is drawn after it. May be run again: nothing is changed but the cache."""
        began = self._clock()
        result = self._runner.run(chunks)
        launched = self._clock()
        drawn = draw_all(result)
        self._recorder.phase(Phase.FORWARD, launched - began)
        self._recorder.phase(Phase.SAMPLE, self._clock() - launched)
        return result, drawn

    def _apply(self, chunks: Sequence[Chunk], result: StepResult, drawn: Sequence[Found]) -> list[Outcome]:
        """Numbers that have overflowed are the error of their sequence, be it in the middle of its prompt: what it
        wrote is not to be shared. Whatever else is wrong with a sequence is its own as well."""
        outcomes: dict[Chunk, Found] = dict(zip(result.sampled, drawn, strict=True))
        outcomes |= {chunk: FloatingPointError() for chunk in result.unsound}
        scored = dict(result.scored)
        for chunk in chunks:
            outcome = outcomes.get(chunk)
            if isinstance(outcome, Exception):
                outcomes[chunk] = SpoiltGuessError() if chunk.draft else outcome
                continue
            try:
                if chunk in scored:
                    self._scored(chunk, scored[chunk])
                self._stand(chunk, outcome)
            except Exception as error:  # noqa: BLE001 - the fault boundary of a sequence: it fails alone
                outcomes[chunk] = error
        return list(outcomes.items())

    def _stand(self, chunk: Chunk, drawn: list[Drawn] | Candidates | None) -> None:
        """Tokens that were guessed right join their sequence: what is computed is of them."""
        right = len(drawn) - 1 if chunk.draft and isinstance(drawn, list) else 0
        if chunk.draft:
            kept = chunk.kept(right)
            chunk.sequence.tokens += chunk.sequence.draft[:right]
            self._computed(kept, chunk.draft)
        else:
            self._computed(chunk, 0)
