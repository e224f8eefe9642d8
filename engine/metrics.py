"""What an engine has done, in numbers that can be added up over engines.

``Recorder`` belongs to the engine's thread; ``EngineMetrics`` is what it has recorded up to one instant. Histograms
have fixed buckets, so that those of several engines merge; tenants are counted by name up to a bound, all others
together. Per token nothing is done but additions: tokens that come out of one step a step after their predecessors
share one observation.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum

from engine.api import EngineStats, Priority
from engine.kv.prefix import Miss
from engine.sequence import Sequence

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""Upper bounds of the buckets of waits, in seconds."""

INSTANTS = (1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, *SECONDS)
"""Upper bounds of the buckets of parts of a step, in seconds."""

OTHERS = "(others)"
"""The tenants beyond the bound. No API key's tenant is called so: names with parentheses are counted here as well."""


class Phase(StrEnum):
    """The parts of a step. On a GPU ``forward`` ends when its work is launched; ``sample`` waits for it."""

    SCHEDULE = "schedule"
    DRAFT = "draft"  # a smaller model's guesses
    FORWARD = "forward"
    SAMPLE = "sample"
    EMIT = "emit"


@dataclass(slots=True)
class Histogram:
    """Counts of values by bucket: ``counts[i]`` of those up to ``bounds[i]``, the last of those above all bounds."""

    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    total: float = 0.0  # sum of all values

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    @property
    def count(self) -> int:
        """Values observed."""
        return sum(self.counts)

    def observe(self, value: float, times: int = 1) -> None:
        """Adds ``value``, as often as ``times``."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times

    def copy(self) -> Histogram:
        """As of now."""
        return Histogram(self.bounds, list(self.counts), self.total)

    def merged(self, other: Histogram) -> Histogram:
        """Both together. Raises ValueError if their buckets differ."""
        if self.bounds != other.bounds:
            raise ValueError("histograms of different buckets do not add up")
        counts = [mine + its for mine, its in zip(self.counts, other.counts, strict=True)]
        return Histogram(self.bounds, counts, self.total + other.total)

    def quantile(self, share: float) -> float:
        """Upper bound of the bucket in which the quantile lies; 0 without values, infinity above all bounds."""
        rank, seen = share * self.count, 0
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            seen += count
            if seen >= rank and seen:
                return bound
        return 0.0


@dataclass(slots=True)
class TenantUse:
    """What was computed for one tenant. Waiting is of now, all else since the start."""

    waiting: int = 0
    prompt_tokens: int = 0  # those that were computed
    generated_tokens: int = 0
    finished: int = 0
    refused: int = 0


@dataclass(frozen=True, slots=True)
class EngineMetrics:
    """Of one engine, or of several merged. Gauges are of now and add up; all else counts since the start."""

    stats: EngineStats
    refused: int  # by a full queue
    repairs: int  # times that the books of the KV cache did not balance and were opened anew
    waiting: Mapping[Priority, int]
    queue_s: Mapping[Priority, Histogram]  # arrival to start
    first_token_s: Mapping[Priority, Histogram]  # arrival to first token
    between_tokens_s: Histogram
    phase_s: Mapping[Phase, Histogram]
    misses: Mapping[Miss, int]  # prompts not found whole in the prefix cache
    tenants: Mapping[str, TenantUse]

    def merged(self, other: EngineMetrics) -> EngineMetrics:
        """Both together. The estimated wait is the shorter one: the next request goes there."""
        names = [each.name for each in fields(EngineStats) if each.name != "wait_s"]
        sums = {name: getattr(self.stats, name) + getattr(other.stats, name) for name in names}
        stats = EngineStats(**sums, wait_s=min(self.stats.wait_s, other.stats.wait_s))
        tenants = {name: _sum(self.tenants, other.tenants, name) for name in {**self.tenants, **other.tenants}}
        return EngineMetrics(
            stats=stats,
            refused=self.refused + other.refused,
            repairs=self.repairs + other.repairs,
            waiting={each: self.waiting[each] + other.waiting[each] for each in Priority},
            queue_s={each: self.queue_s[each].merged(other.queue_s[each]) for each in Priority},
            first_token_s={each: self.first_token_s[each].merged(other.first_token_s[each]) for each in Priority},
            between_tokens_s=self.between_tokens_s.merged(other.between_tokens_s),
            phase_s={phase: self.phase_s[phase].merged(other.phase_s[phase]) for phase in Phase},
            misses={miss: self.misses[miss] + other.misses[miss] for miss in Miss},
            tenants=tenants,
        )


class Recorder:
    """Records one engine. ``names`` are tenants that are always told apart, others until there are ``tenants``."""

    def __init__(self, names: Iterable[str] = (), tenants: int = 64) -> None:
        self._bound = tenants
        self._tenants = {name: TenantUse() for name in names}
        self._queue_s = {each: Histogram(SECONDS) for each in Priority}
        self._first_token_s = {each: Histogram(SECONDS) for each in Priority}
        self._between_tokens_s = Histogram(SECONDS)
        self._phase_s = {phase: Histogram(INSTANTS) for phase in Phase}
        self._misses = dict.fromkeys(Miss, 0)
        self._last_step = 0.0  # instant at which tokens last came out
        self.refused = 0
        self.repairs = 0

    def tenant(self, name: str) -> TenantUse:
        """The account of a tenant, or the one that it shares with others."""
        if name not in self._tenants:
            if len(self._tenants) >= self._bound or name.startswith("("):
                name = OTHERS
            self._tenants.setdefault(name, TenantUse())
        return self._tenants[name]

    def refuse(self, tenant: str) -> None:
        """A full queue has refused a request. Called by whoever holds the queue's lock."""
        self.refused += 1
        self.tenant(tenant).refused += 1

    def started(self, sequence: Sequence) -> None:
        """A sequence has left the queue for the first time."""
        self._queue_s[sequence.priority].observe(sequence.waited_s)
        if sequence.miss is not None:
            self._misses[sequence.miss] += 1

    def phase(self, phase: Phase, seconds: float) -> None:
        """A part of a step took so long."""
        self._phase_s[phase].observe(seconds)

    def told(self, sequences: Iterable[Sequence], now: float) -> None:
        """Each of these got one token in the step that ends ``now``."""
        regular = 0  # those that also got one in the step before: their gap is the same
        last = self._last_step
        for sequence in sequences:
            if sequence.told_at == last and last:
                regular += 1
            elif sequence.told_at:
                self._between_tokens_s.observe(now - sequence.told_at)
            else:
                self._first_token_s[sequence.priority].observe(now - sequence.arrived)
            sequence.told_at = now
        if regular:
            self._between_tokens_s.observe(now - last, regular)
        self._last_step = now

    def ended(self, sequence: Sequence, generated: int, finished: bool) -> None:
        """A sequence has ended, by itself or not, after so many tokens that were told."""
        use = self.tenant(sequence.tenant)
        if sequence.cached_tokens is not None:
            use.prompt_tokens += sequence.prompt_length - sequence.cached_tokens
        use.generated_tokens += generated
        use.finished += finished

    def snapshot(self, stats: EngineStats, waiting: Mapping[tuple[Priority, str], int]) -> EngineMetrics:
        """All up to now; ``waiting`` counts by class and tenant. From another thread each number is right, but they may
        be a step apart."""
        for _, name in waiting:
            self.tenant(name)  # from its first request on it has a name here, if there is one to have
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
            queue_s={each: histogram.copy() for each, histogram in self._queue_s.items()},
            first_token_s={each: histogram.copy() for each, histogram in self._first_token_s.items()},
            between_tokens_s=self._between_tokens_s.copy(),
            phase_s={phase: histogram.copy() for phase, histogram in self._phase_s.items()},
            misses=dict(self._misses),
            tenants=tenants,
        )


def _sum(one: Mapping[str, TenantUse], other: Mapping[str, TenantUse], name: str) -> TenantUse:
    mine, its = one.get(name, TenantUse()), other.get(name, TenantUse())
    return TenantUse(*(getattr(mine, each.name) + getattr(its, each.name) for each in fields(TenantUse)))
