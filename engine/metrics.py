"""Metrics of an engine that can be merged over several engines.

The engine's thread writes into a ``Recorder``; an ``EngineMetrics`` is a snapshot of it. Histograms have fixed buckets,
so that those of several engines can be added. Tenants are counted by name up to a limit, and beyond it as one. To keep
the cost per token low, the time between tokens is recorded once for all sequences that got tokens in two consecutive
steps.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from engine.api import LATENCY_BOUNDS_S, ClassLoad, EngineStats, Priority, TtftObjective
from engine.kv.prefix import Miss

if TYPE_CHECKING:  # it imports torch, which those who read metrics do without
    from engine.sequence import Sequence

SECONDS = LATENCY_BOUNDS_S
"""Upper bounds of the histogram buckets for waiting times, in seconds. The usual objectives are among them, and others
are added (``Recorder``), so that the share of requests within one can be counted exactly."""

INSTANTS = (1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, *SECONDS)
"""Upper bounds of the histogram buckets for phases of a step, in seconds."""

LENGTHS = (1, 4, 16, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072)
"""Upper bounds of the histogram buckets for the lengths of prompts and answers, in tokens."""

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
"""Upper bounds of the histogram buckets for the sequences of a step."""

OTHERS = "(others)"
"""The tenant under whose name all tenants beyond the limit are counted. Tenants of API keys have no parenthesis at the
start; any name that has is counted here as well."""


class Phase(StrEnum):
    """The phases of a step. On a GPU ``forward`` ends when the kernels are launched, and ``sample`` includes waiting
    for them."""

    SCHEDULE = "schedule"
    DRAFT = "draft"  # the draft model's forward passes
    FORWARD = "forward"
    SAMPLE = "sample"
    EMIT = "emit"


@dataclass(slots=True)
class Histogram:
    """Counts of values by bucket. ``counts[i]`` counts values in the bucket that ends at ``bounds[i]``, inclusive; the
    last count is that of values above all bounds."""

    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    total: float = 0.0  # sum of all values

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    @property
    def count(self) -> int:
        """Number of values observed."""
        return sum(self.counts)

    def observe(self, value: float, times: int = 1) -> None:
        """Counts ``value``, in the histogram's unit, ``times`` times."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times

    def copy(self) -> Histogram:
        """Returns an independent copy."""
        return Histogram(self.bounds, list(self.counts), self.total)

    def merged(self, other: Histogram) -> Histogram:
        """Returns the histogram of all values of both. Raises ValueError if their bounds differ."""
        if self.bounds != other.bounds:
            raise ValueError("histograms of different buckets do not add up")
        counts = [mine + its for mine, its in zip(self.counts, other.counts, strict=True)]
        return Histogram(self.bounds, counts, self.total + other.total)

    def folded(self, extra: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the counts without the buckets at the places ``extra``, which are those of ``extra_buckets``: their
        values count in the next one. A replica's load has four of these with each step."""
        counts = list(self.counts)
        for place in extra:
            folded = counts.pop(place)
            counts[place] += folded
        return tuple(counts)

    def counted_by(self, usual: Collection[float]) -> tuple[int, ...]:
        """Returns the counts by the buckets that end at ``usual``, which are all among those of this histogram, and the
        count above all of them."""
        return self.folded(extra_buckets(self.bounds, usual))

    def quantile(self, share: float) -> float:
        """Returns the upper bound of the bucket that holds the quantile ``share`` (0 to 1). Returns 0 if there are no
        values, and infinity if the quantile lies above all bounds."""
        rank, seen = share * self.count, 0
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            seen += count
            if seen >= rank and seen:
                return bound
        return 0.0


def extra_buckets(bounds: tuple[float, ...], usual: Collection[float]) -> tuple[int, ...]:
    """Returns the places of the buckets whose bound is none of ``usual``, last first, so that a bucket can be taken out
    without moving the others that follow."""
    return tuple(place for place in reversed(range(len(bounds))) if bounds[place] not in usual)


@dataclass(slots=True)
class TenantUse:
    """The use that one tenant makes of the engine. ``waiting`` is the current number of its requests in the queue; all
    else counts since the start."""

    waiting: int = 0
    prompt_tokens: int = 0  # prompt tokens computed, without those from the prefix cache
    generated_tokens: int = 0
    finished: int = 0  # requests whose answers are complete
    refused: int = 0  # requests refused because the queue was full


@dataclass(slots=True)
class ClassUse:
    """The counts of one scheduling class, as in ``ClassLoad``, but that ``arrivals`` are without refused requests."""

    arrivals: int = 0
    refusals: int = 0
    prompt_tokens: float = 0.0
    finished: int = 0
    output_tokens: int = 0
    late: int = 0


@dataclass(frozen=True, slots=True)
class EngineMetrics:
    """A snapshot of the metrics of one engine, or the sum of several. Gauges have current values; all else counts since
    the start."""

    stats: EngineStats
    refused: int  # requests refused because the queue was full
    repairs: int  # times that the KV cache was replaced because its bookkeeping was inconsistent
    waiting: Mapping[Priority, int]  # waiting requests
    oldest_wait_s: Mapping[Priority, float]  # of the waiting request that has waited longest; 0: none waits
    queue_s: Mapping[Priority, Histogram]  # time from arrival to the first admission, of each request
    first_token_s: Mapping[Priority, Histogram]  # time to first token (TTFT), of each request
    between_tokens_s: Histogram  # inter-token latency (ITL), of each sequence
    phase_s: Mapping[Phase, Histogram]
    step_s: Histogram  # whole steps with a forward pass
    batch_sequences: Histogram  # sequences of each of these steps
    prompt_length: Histogram  # tokens of each admitted prompt
    answer_length: Histogram  # tokens of each answer that has ended, complete or not
    misses: Mapping[Miss, int]  # prompts whose prefix was not fully cached, by reason
    tenants: Mapping[str, TenantUse]
    kernels: Mapping[str, int]  # engines by the kernels that run their steps (``StepRunner.kernels``)

    def merged(self, other: EngineMetrics) -> EngineMetrics:
        """Returns the metrics of both engines together: all numbers are added, except two. The estimated wait is the
        shorter one, since a router would send the next request there. The wait of the oldest request is the longer
        one."""
        names = [each.name for each in fields(EngineStats) if each.name != "wait_s"]
        sums = {name: _added(getattr(self.stats, name), getattr(other.stats, name)) for name in names}
        stats = EngineStats(**sums, wait_s=min(self.stats.wait_s, other.stats.wait_s))
        tenants = {name: _sum(self.tenants, other.tenants, name) for name in {**self.tenants, **other.tenants}}
        return EngineMetrics(
            stats=stats,
            refused=self.refused + other.refused,
            repairs=self.repairs + other.repairs,
            waiting={each: self.waiting[each] + other.waiting[each] for each in Priority},
            oldest_wait_s={each: max(self.oldest_wait_s[each], other.oldest_wait_s[each]) for each in Priority},
            queue_s={each: self.queue_s[each].merged(other.queue_s[each]) for each in Priority},
            first_token_s={each: self.first_token_s[each].merged(other.first_token_s[each]) for each in Priority},
            between_tokens_s=self.between_tokens_s.merged(other.between_tokens_s),
            phase_s={phase: self.phase_s[phase].merged(other.phase_s[phase]) for phase in Phase},
            step_s=self.step_s.merged(other.step_s),
            batch_sequences=self.batch_sequences.merged(other.batch_sequences),
            prompt_length=self.prompt_length.merged(other.prompt_length),
            answer_length=self.answer_length.merged(other.answer_length),
            misses={miss: self.misses[miss] + other.misses[miss] for miss in Miss},
            tenants=tenants,
            kernels={
                name: self.kernels.get(name, 0) + other.kernels.get(name, 0)
                for name in {**self.kernels, **other.kernels}
            },
        )


class Recorder:
    """Records the metrics of one engine. Counts the tenants ``names`` separately in any case, and others until there
    are ``tenants`` in all. A bucket of TTFT and ITL ends at each of ``objectives_s``, too. Instants are seconds of the
    engine's clock.

    ``objectives`` are those by which the requests of a class are late, if it has one. They may be replaced at any time.
    """

    def __init__(self, names: Iterable[str] = (), tenants: int = 64, objectives_s: Iterable[float] = ()) -> None:
        self._bound = tenants
        latencies = tuple(sorted({*SECONDS, *objectives_s}))
        self._extra = extra_buckets(latencies, SECONDS)
        self._tenants = {name: TenantUse() for name in names}
        self._queue_s = {each: Histogram(SECONDS) for each in Priority}
        self._first_token_s = {each: Histogram(latencies) for each in Priority}
        self._between_tokens_s = Histogram(latencies)
        self._phase_s = {phase: Histogram(INSTANTS) for phase in Phase}
        self._step_s = Histogram(SECONDS)
        self._batch_sequences = Histogram(BATCHES)
        self._prompt_length = Histogram(LENGTHS)
        self._answer_length = Histogram(LENGTHS)
        self._misses = dict.fromkeys(Miss, 0)
        self._classes = {each: ClassUse() for each in Priority}
        self.objectives: Mapping[Priority, TtftObjective] = {}
        self._last_step = 0.0  # end of the last step that emitted tokens
        self.refused = 0
        self.repairs = 0
        self.kernels = ""  # ``StepRunner.kernels``

    def tenant(self, name: str) -> TenantUse:
        """Returns the counts of the tenant ``name``; creates them on its first call. Returns those of OTHERS for a new
        name once the limit is reached, and for a name that starts with a parenthesis."""
        if name not in self._tenants:
            if len(self._tenants) >= self._bound or name.startswith("("):
                name = OTHERS
            self._tenants.setdefault(name, TenantUse())
        return self._tenants[name]

    def refuse(self, tenant: str, priority: Priority, *, continues: bool = False) -> None:
        """Counts a request that a full queue refused. Called on any thread, by the holder of the queue's lock.
        ``continues``: another replica had the request before, and has counted it by its class."""
        self.refused += 1
        self.tenant(tenant).refused += 1
        if not continues:
            self._classes[priority].refusals += 1

    def refused_by_router(self, counts: Iterable[int]) -> None:
        """Counts requests that a router has refused, by class in the order of ``Priority``. Called as ``refuse`` is."""
        for priority, count in zip(Priority, counts, strict=False):
            self._classes[priority].refusals += count

    def arrived(self, priority: Priority, prompt_tokens: float) -> None:
        """Counts a request that was queued. ``prompt_tokens`` are those that are expected to be computed."""
        use = self._classes[priority]
        use.arrivals += 1
        use.prompt_tokens += prompt_tokens

    def broken(self, sequence: Sequence, now: float) -> None:
        """Counts a request that ended before its answer was complete, at the instant ``now``. ``sequence`` is its
        first choice."""
        self._classes[sequence.priority].finished += 1
        if not sequence.last_token_at:
            self._count_if_late(sequence, now)

    @property
    def mean_output(self) -> float | None:
        """The mean tokens of the answers up to now; None if there was none."""
        finished = sum(use.finished for use in self._classes.values())
        return sum(use.output_tokens for use in self._classes.values()) / finished if finished else None

    def class_loads(self) -> dict[Priority, ClassLoad]:
        """Returns the counts of each class up to now."""
        return {
            each: ClassLoad(
                use.arrivals + use.refusals,
                use.refusals,
                use.prompt_tokens,
                use.finished,
                use.output_tokens,
                self._first_token_s[each].folded(self._extra),
                use.late if each in self.objectives else None,
            )
            for each, use in self._classes.items()
        }

    @property
    def itl(self) -> tuple[int, ...]:
        """The times between tokens up to now, counted by SECONDS."""
        return self._between_tokens_s.folded(self._extra)

    @property
    def itl_s(self) -> float:
        """The sum of the times between tokens up to now, in seconds."""
        return self._between_tokens_s.total

    def admitted(self, sequence: Sequence) -> None:
        """Records the wait of a sequence that was admitted for the first time, the length of its prompt, and why its
        prefix was not fully cached."""
        self._queue_s[sequence.priority].observe(sequence.waited_s)
        self._prompt_length.observe(sequence.prompt_length)
        if sequence.miss is not None:
            self._misses[sequence.miss] += 1

    def phase(self, phase: Phase, seconds: float) -> None:
        """Records that ``phase`` of a step took ``seconds``."""
        self._phase_s[phase].observe(seconds)

    def step(self, sequences: int, seconds: float) -> None:
        """Records that a step with a forward pass of ``sequences`` took ``seconds``, from schedule to deltas."""
        self._step_s.observe(seconds)
        self._batch_sequences.observe(sequences)

    def tokens_emitted(self, sequences: Iterable[Sequence], now: float) -> None:
        """Records that each of ``sequences`` got tokens in the step that ended at the instant ``now``: the time since
        its previous tokens or, for its first, since the arrival of its request. Sets its ``last_token_at``."""
        regular = 0  # sequences that also got tokens in the step before: their interval is the same
        last = self._last_step
        for sequence in sequences:
            if sequence.last_token_at == last and last:
                regular += 1
            elif sequence.last_token_at:
                self._between_tokens_s.observe(now - sequence.last_token_at)
            else:
                self._first_token_s[sequence.priority].observe(now - sequence.arrived)
                self._count_if_late(sequence, now)
            sequence.last_token_at = now
        if regular:
            self._between_tokens_s.observe(now - last, regular)
        self._last_step = now

    def _count_if_late(self, sequence: Sequence, now: float) -> None:
        """Counts a request without a token before the instant ``now``, if it is late by its objective. Not one that
        another replica had before, which is none of the arrivals here; and not its further choices."""
        objective = self.objectives.get(sequence.priority)
        if objective is None or sequence.continues or sequence.choice:
            return
        uncached = sequence.prompt_length - (sequence.cached_tokens or 0)
        self._classes[sequence.priority].late += now - sequence.arrived > objective.allowed_s(uncached)

    def ended(self, sequence: Sequence, generated: int, finished: bool) -> None:
        """Adds the tokens of a sequence that has ended to the counts of its tenant: its computed prompt tokens and
        ``generated`` tokens that were sent. ``finished``: also counts its request, whose last choice it was."""
        use = self.tenant(sequence.tenant)
        if sequence.cached_tokens is not None:
            use.prompt_tokens += sequence.prompt_length - sequence.cached_tokens
        use.generated_tokens += generated
        self._answer_length.observe(generated)
        use.finished += finished
        of_class = self._classes[sequence.priority]
        of_class.output_tokens += generated
        of_class.finished += finished

    def snapshot(
        self,
        stats: EngineStats,
        waiting: Mapping[tuple[Priority, str], int],
        oldest_wait_s: Mapping[Priority, float] | None = None,
    ) -> EngineMetrics:
        """Returns the metrics up to now. ``stats`` becomes part of them. ``waiting`` counts the waiting requests by
        priority class and tenant. ``oldest_wait_s`` has the longest wait of a waiting request by class, in seconds;
        None: nothing waits.

        A tenant that is new in ``waiting`` gets counts of its own in this recorder, or is counted under OTHERS once the
        limit is reached. May be called from any thread; each number is correct, but some may include a running step and
        others not.
        """
        for _, name in waiting:
            self.tenant(name)  # counts it by its name from its first request on, if the limit allows
        tenants = {
            name: TenantUse(0, use.prompt_tokens, use.generated_tokens, use.finished, use.refused)
            for name, use in list(self._tenants.items())
        }
        classes = dict.fromkeys(Priority, 0)
        for (priority, name), count in waiting.items():
            classes[priority] += count
            known = name if name in tenants else OTHERS
            tenants.setdefault(known, TenantUse()).waiting += count
        return EngineMetrics(
            stats=stats,
            refused=self.refused,
            repairs=self.repairs,
            waiting=classes,
            oldest_wait_s=dict(oldest_wait_s or dict.fromkeys(Priority, 0.0)),
            queue_s={each: histogram.copy() for each, histogram in self._queue_s.items()},
            first_token_s={each: histogram.copy() for each, histogram in self._first_token_s.items()},
            between_tokens_s=self._between_tokens_s.copy(),
            phase_s={phase: histogram.copy() for phase, histogram in self._phase_s.items()},
            step_s=self._step_s.copy(),
            batch_sequences=self._batch_sequences.copy(),
            prompt_length=self._prompt_length.copy(),
            answer_length=self._answer_length.copy(),
            misses=dict(self._misses),
            tenants=tenants,
            kernels={self.kernels: 1},
        )


def _added(one: Any, other: Any) -> Any:
    """Returns the sum of two numbers, or of two tuples of numbers, each with each."""
    if isinstance(one, tuple):
        return tuple(mine + its for mine, its in zip(one, other, strict=True))
    return one + other


def _sum(one: Mapping[str, TenantUse], other: Mapping[str, TenantUse], name: str) -> TenantUse:
    """Returns the sum of one tenant's use in two engines."""
    mine, its = one.get(name, TenantUse()), other.get(name, TenantUse())
    return TenantUse(*(getattr(mine, each.name) + getattr(its, each.name) for each in fields(TenantUse)))
