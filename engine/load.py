"""``EngineLoad`` of one engine: what it has to do and how fast it does it. Autoscaling decides by it.

The engine's thread calls ``StepTimes.observe`` for each step, and ``demand`` a few times a second.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from engine.api import DueWork, Priority
from engine.scheduler.step_plan import Load
from engine.sequence import Sequence

HALF_LIFE_S = 10.0
"""The seconds after which a step counts half in the means of ``StepTimes``."""

LEAST_WEIGHT = 0.001
"""Of old steps in the means, in steps."""

MIN_SHARE = 0.1
"""The least share of a mixed step's time that counts as prefill."""

UNKNOWN_OUTPUT = 256.0
"""Tokens that an answer is expected to have, at most, until a first one has ended."""


DUE_BOUNDS_S = (60.0, 300.0, 900.0, 3600.0, 4 * 3600.0)
"""Batch work is summed by the time that is left for it, within these bounds. The earliest deadline of each sum counts
for all of it."""


class Demand(NamedTuple):
    """What the running and waiting sequences still need, in tokens, and once more of the class BATCH alone."""

    queued_prompt_tokens: float = 0.0
    kv_demand_tokens: float = 0.0
    batch_prompt_tokens: float = 0.0
    batch_sequences: int = 0
    batch_kv_tokens: float = 0.0


def demand(
    running: Iterable[Sequence], waiting: Iterable[Sequence], uncached: float, output: float | None = None
) -> Demand:
    """Returns the demand of the sequences.

    ``uncached`` is the share of a waiting prompt that the prefix cache is not expected to have, and ``output`` the
    expected length of an answer, None if unknown.
    """
    queued = kv = batch_queued = batch_kv = 0.0
    batch = 0
    for sequences, share in ((running, 1.0), (waiting, uncached)):
        for sequence in sequences:
            prompt = share * max(0, sequence.prompt_length - sequence.computed)
            end = sequence.prompt_length + _expected_output(sequence, output)
            queued, kv = queued + prompt, kv + end
            if sequence.priority is Priority.BATCH:
                batch, batch_queued, batch_kv = batch + 1, batch_queued + prompt, batch_kv + end
    return Demand(queued, kv, batch_queued, batch, batch_kv)


def oldest(waiting: Iterable[Sequence]) -> dict[Priority, float]:
    """Returns, for each class that waits, the instant since which its oldest request waits. The time in which a
    preempted request ran does not count, nor do further choices of a request."""
    since: dict[Priority, float] = {}
    for sequence in waiting:
        if not sequence.choice:
            instant = sequence.queued_at - sequence.waited_s
            since[sequence.priority] = min(instant, since.get(sequence.priority, instant))
    return since


def waits(since: Mapping[Priority, float], now: float) -> dict[Priority, float]:
    """Returns the seconds from each instant of ``since`` to ``now``; 0 for a class that has none."""
    return {each: max(0.0, now - since[each]) if each in since else 0.0 for each in Priority}


def due_work(
    running: Iterable[Sequence], waiting: Iterable[Sequence], uncached: float, output: float | None, now: float
) -> tuple[DueWork, ...]:
    """Returns the work of the class BATCH that has no first token yet and a deadline for it that has not passed,
    earliest first. ``now`` is the instant by the clock of ``Sequence.deadline``; the other arguments are as in
    ``demand``."""
    sums: dict[int, DueWork] = {}
    for sequences, share in ((running, 1.0), (waiting, uncached)):
        for sequence in sequences:
            if sequence.priority is not Priority.BATCH or sequence.deadline is None or sequence.generated:
                continue
            left_s = sequence.deadline - now
            if left_s <= 0:
                continue  # the engine ends what is late
            place = bisect(DUE_BOUNDS_S, left_s)
            before = sums.get(place, DueWork(left_s))
            sums[place] = DueWork(
                min(left_s, before.left_s),
                before.prompt_tokens + share * max(0, sequence.prompt_length - sequence.computed),
                before.output_tokens + _expected_output(sequence, output),
                max(left_s, before.latest_left_s),
            )
    return tuple(sums[place] for place in sorted(sums))


def _expected_output(sequence: Sequence, output: float | None) -> float:
    expected = UNKNOWN_OUTPUT if output is None else output
    return min(float(sequence.max_tokens), max(float(sequence.generated), expected))


@dataclass(slots=True)
class _Sums:
    """Sums over steps, each of which counts half after HALF_LIFE_S."""

    steps: float = 0.0
    seconds: float = 0.0
    amount: float = 0.0  # decoding sequences, or prompt tokens

    def add(self, seconds: float, amount: float) -> None:
        self.steps += 1
        self.seconds += seconds
        self.amount += amount

    def decay(self, factor: float) -> None:
        # Not to zero: the last measurements stay known, however long the engine is idle.
        factor = max(factor, min(1.0, LEAST_WEIGHT / self.steps)) if self.steps else factor
        self.steps *= factor
        self.seconds *= factor
        self.amount *= factor


class StepTimes:
    """Recent means of how long steps take. 0 until measured.

    Of a step with prefill and decodes, the mean time of steps with decodes alone does not count as prefill.
    """

    def __init__(self) -> None:
        self._decode = _Sums()
        self._prefill = _Sums()
        self._then: float | None = None  # instant of the last step

    @property
    def decode_step_s(self) -> float:
        """Seconds of a step without prefill."""
        return self._decode.seconds / self._decode.steps if self._decode.steps else 0.0

    @property
    def decode_batch(self) -> float:
        """Sequences of a step without prefill."""
        return self._decode.amount / self._decode.steps if self._decode.steps else 0.0

    @property
    def prefill_tokens_per_s(self) -> float:
        """Prompt tokens per second of the time that went into prefill."""
        return self._prefill.amount / self._prefill.seconds if self._prefill.seconds else 0.0

    @property
    def chunk_tokens(self) -> float:
        """Prompt tokens of a step with prefill."""
        return self._prefill.amount / self._prefill.steps if self._prefill.steps else 0.0

    def observe(self, load: Load, seconds: float, now: float) -> None:
        """Records that a step with this ``load`` took ``seconds`` and ended at ``now``, by the engine's clock."""
        if self._then is not None and now > self._then:
            factor = 0.5 ** ((now - self._then) / HALF_LIFE_S)
            self._decode.decay(factor)
            self._prefill.decay(factor)
        self._then = now
        prompt = load.long + load.short
        if prompt:
            alone_s = self.decode_step_s if load.decodes else 0.0
            self._prefill.add(max(MIN_SHARE * seconds, seconds - alone_s), prompt)
        elif load.decodes:
            self._decode.add(seconds, load.decodes)
