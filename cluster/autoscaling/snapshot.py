"""``Snapshot``: all inputs of one decision of the autoscaler. The collector builds it, in Serve or in the simulator.

Instants are seconds of the collector's clock, which only goes forward: where it says ``observed_at_s``, the instant at
which the collector received the value, so that clocks of other machines do not count. Pins have the time of day, in
Unix seconds, for which ``Snapshot.unix_s`` says what it is now. Durations are seconds, lengths are tokens.

Counters (``ClassCounters``) count up from any start. The policy takes differences, so that a snapshot that is seen
twice, or never, loses nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from cluster.autoscaling.histogram import LatencyHistogram
from engine.api import Priority


class ReplicaState(StrEnum):
    """The state of a replica, from the autoscaler's view."""

    STARTING = "starting"  # scheduled, or loads its model
    READY = "ready"  # serves
    DRAINING = "draining"  # finishes its streams and gets no more. Ray Serve does not tell of these
    WARM = "warm"  # has loaded its model and serves nothing: the warm pool


@dataclass(frozen=True, slots=True)
class ReplicaSample:
    """The last report of a replica's engine. Batch work is included in the totals, and given separately in the fields
    ``batch_...``.

    ``kv_demand_tokens`` is the KV cache that running and waiting requests will hold at their expected ends.
    ``prefill_tokens_per_s`` is the number of prompt tokens per second of prefill time. ``decode_step_s`` is the mean
    duration of steps without prefill, at ``decode_batch`` sequences on average. These three are 0 until measured.
    ``chunk_tokens`` is the number of prompt tokens that a step prefills beside its decodes, 0 if unknown. ``model``
    tells replicas of different speed apart: it is a number for the model's version and the hardware, 0 if unknown.
    """

    observed_at_s: float
    queued_prompt_tokens: float = 0.0  # not in the prefix cache and not yet prefilled
    running_requests: int = 0
    waiting_requests: int = 0
    kv_used_tokens: float = 0.0
    kv_demand_tokens: float = 0.0
    kv_capacity_tokens: float = 0.0
    prefill_tokens_per_s: float = 0.0
    decode_step_s: float = 0.0
    decode_batch: float = 0.0
    chunk_tokens: float = 0.0
    batch_prompt_tokens: float = 0.0  # of queued_prompt_tokens
    batch_requests: int = 0  # of running_requests and waiting_requests
    batch_kv_tokens: float = 0.0  # of kv_demand_tokens
    model: int = 0


@dataclass(frozen=True, slots=True)
class ReplicaSnapshot:
    """One replica of a tier. ``sample`` is None if it has never reported."""

    replica_id: str
    state: ReplicaState
    since_s: float  # instant at which it came into this state
    sample: ReplicaSample | None = None


@dataclass(frozen=True, slots=True)
class ClassCounters:
    """The counters of one scheduling class of a tier, as sums over all routers.

    ``arrivals`` include refused requests. ``prompt_tokens`` counts the arrivals' prompt tokens that are not in a prefix
    cache, as the router estimates. ``finished`` and ``output_tokens`` give the mean length of answers. ``late`` counts
    the first tokens that came later than the objective of their class allows after their own prompt, by the replicas
    whose reports say so (``LatencyReport.counts_late``).
    """

    arrivals: int = 0
    refusals: int = 0  # for want of capacity; not for limits, rights or content
    prompt_tokens: float = 0.0
    finished: int = 0
    output_tokens: float = 0.0
    late: int = 0


@dataclass(frozen=True, slots=True)
class LatencyReport:
    """Latencies of one class of a tier from one source (a router or a replica), over the ``window_s`` seconds before
    ``observed_at_s``. ``counts_late``: the first tokens of this source that are late are in ``ClassCounters.late``."""

    source: str
    priority: Priority
    observed_at_s: float
    ttft: LatencyHistogram
    itl: LatencyHistogram
    window_s: float = 30.0
    counts_late: bool = False


@dataclass(frozen=True, slots=True)
class WaitingRoom:
    """Requests that routers hold because the tier has no ready replica."""

    requests: int = 0
    prompt_tokens: float = 0.0
    oldest_s: float = 0.0  # age of the request that has waited longest


@dataclass(frozen=True, slots=True)
class BatchWork:
    """Batch work that must be finished by ``deadline_at_s``: queued and running requests together."""

    deadline_at_s: float
    prompt_tokens: float = 0.0  # not yet prefilled
    output_tokens: float = 0.0  # expected, not yet generated


@dataclass(frozen=True, slots=True)
class TierSnapshot:
    """One tier. ``target`` is the number of replicas that Serve has been asked for."""

    name: str
    target: int
    replicas: tuple[ReplicaSnapshot, ...] = ()
    counters: Mapping[Priority, ClassCounters] = field(default_factory=dict)
    counted_at_s: float | None = None  # instant of ``counters``; None: that of the snapshot
    latencies: tuple[LatencyReport, ...] = ()
    waiting_room: WaitingRoom = WaitingRoom()
    batch_work: tuple[BatchWork, ...] = ()
    cold_start_s: float = 0.0  # measured, from the order to the first request; 0 until measured
    gpus_per_replica: float = 0.0


@dataclass(frozen=True, slots=True)
class FollowerSnapshot:
    """A deployment that requests of several tiers flow through: Router, SafetyClassifier, Embedder, SemanticCache.

    ``requests`` counts up as in ``ClassCounters``. ``busy_s`` counts the seconds of replica time that they took.
    ``fresh`` is the number of ready replicas that have reported lately; None: all.
    """

    name: str
    target: int
    ready: int
    requests: int = 0
    busy_s: float = 0.0
    fresh: int | None = None


@dataclass(frozen=True, slots=True)
class Pin:
    """An operator's fixed number of replicas for a tier, valid until ``expires_at_s`` (Unix seconds)."""

    tier: str
    replicas: int
    expires_at_s: float
    why: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The application at the instant ``at_s``. ``pool_gpus`` is the present number of GPUs of each pool; a pool without
    an entry has the number in the configuration. ``unix_s`` is the time of day; None: that of ``at_s``, which is then
    in Unix seconds."""

    at_s: float
    tiers: tuple[TierSnapshot, ...] = ()
    followers: tuple[FollowerSnapshot, ...] = ()
    pins: tuple[Pin, ...] = ()
    pool_gpus: Mapping[str, float] = field(default_factory=dict)
    unix_s: float | None = None

    @property
    def time_s(self) -> float:
        """The time of day, in Unix seconds."""
        return self.at_s if self.unix_s is None else self.unix_s
