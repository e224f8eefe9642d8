"""One step of a batch, and of its sequences one by one when the batch fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from engine.backend import StepRunner
from engine.decode.drawing import Drawn, draw_all
from engine.failures import log_failure
from engine.metrics import Phase, Recorder
from engine.scheduler.plan import Chunk
from engine.speculation import Speculator

Outcome = tuple[Chunk, list[Drawn] | Exception]
"""A chunk after which tokens were drawn, with them (more than one where branches begin), or one that failed."""


class Forward:
    """Runs steps. ``computed`` is called for each chunk that was, ``scored`` with the logits of those of a prompt that
    are to be scored."""

    def __init__(
        self,
        runner: StepRunner,
        recorder: Recorder,
        clock: Callable[[], float],
        computed: Callable[[Chunk], None],
        scored: Callable[[Chunk, Tensor], None],
        speculator: Speculator,
    ) -> None:
        self._runner = runner
        self._recorder = recorder
        self._clock = clock
        self._computed = computed
        self._scored = scored
        self._speculator = speculator

    def compute(self, chunks: Sequence[Chunk]) -> list[Outcome]:
        """Runs ``chunks``; what is drawn after them, and what failed."""
        try:
            return self._run(chunks)
        except Exception as error:  # noqa: BLE001 - the fault boundary of a batch: the engine serves the others
            log_failure("a step", error)
            if len(chunks) == 1:
                return [(chunks[0], error)]
        outcomes: list[Outcome] = []
        for chunk in chunks:
            try:
                outcomes += self._run([chunk])
            except Exception as error:  # noqa: BLE001 - the fault boundary of a sequence: it fails alone
                outcomes.append((chunk, error))
        return outcomes

    def _run(self, chunks: Sequence[Chunk]) -> list[Outcome]:
        """One forward pass. Numbers that have overflowed are the error of their sequence, be it in the middle of its
        prompt: what it wrote is not to be shared."""
        began = self._clock()
        result = self._runner.run(chunks)
        launched = self._clock()
        drawn = draw_all(result)
        for chunk, logits in result.scored:
            self._scored(chunk, logits)
        spoilt = set(result.unsound)
        guessed = {chunk: self._guessed(chunk, each) for chunk, each in zip(result.sampled, drawn, strict=True)}
        for chunk in chunks:
            if chunk not in spoilt:
                self._computed(guessed.get(chunk, chunk))
        self._recorder.phase(Phase.FORWARD, launched - began)
        self._recorder.phase(Phase.SAMPLE, self._clock() - launched)
        outcomes: list[Outcome] = [(chunk, FloatingPointError()) for chunk in result.unsound]
        return outcomes + [pair for pair in zip(result.sampled, drawn, strict=True) if pair[0] not in spoilt]

    def _guessed(self, chunk: Chunk, drawn: list[Drawn] | Exception) -> Chunk:
        """What of a chunk stands. Tokens that were guessed right join their sequence: what is computed is of them."""
        if not chunk.draft or isinstance(drawn, Exception):
            return chunk.kept(0) if chunk.draft else chunk
        right = len(drawn) - 1
        self._speculator.learn(chunk, right)
        kept = chunk.kept(right)
        chunk.sequence.tokens += [each.token for each in drawn[:-1]]
        return kept
