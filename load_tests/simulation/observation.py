"""``Observation``: what a policy sees of the simulated tier, and the protocol of policies."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

BOUNDS_S = (
    *(0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
    *(1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0),
)
"""Upper bounds of the buckets of latencies, in seconds. A last bucket has what is above them all."""
WINDOW_S = 30.0  # of latencies


@dataclass(slots=True)
class Counters:
    """What has been counted of one class since the start."""

    arrivals: int = 0
    refusals: int = 0
    prompt_tokens: int = 0
    uncached_tokens: float = 0.0
    finished: int = 0
    output_tokens: int = 0  # of finished requests


class _Part(NamedTuple):
    """The latencies between two calls of ``Latencies.add``, as there."""

    at: float
    ttft: NDArray[np.int64]
    itl: NDArray[np.int64]
    itl_s: float


class Latencies:
    """The latencies of one class over the last WINDOW_S seconds, as counts by bucket of BOUNDS_S."""

    def __init__(self) -> None:
        self.ttft_counts = np.zeros(len(BOUNDS_S) + 1, dtype=np.int64)
        self.itl_counts = np.zeros(len(BOUNDS_S) + 1, dtype=np.int64)
        self.itl_s = 0.0  # their sum
        self._parts: deque[_Part] = deque()

    def add(self, now: float, ttft: Sequence[float], itl: Sequence[float]) -> None:
        """Adds the latencies measured since the last call, in seconds, and drops those that leave the window."""
        part = _Part(now, _counts(ttft), _counts(itl), float(sum(itl)))
        self._parts.append(part)
        self.ttft_counts += part.ttft
        self.itl_counts += part.itl
        self.itl_s += part.itl_s
        while self._parts[0].at < now - WINDOW_S:
            old = self._parts.popleft()
            self.ttft_counts -= old.ttft
            self.itl_counts -= old.itl
            self.itl_s -= old.itl_s


def _counts(latencies: Sequence[float]) -> NDArray[np.int64]:
    return np.bincount(np.searchsorted(BOUNDS_S, latencies), minlength=len(BOUNDS_S) + 1).astype(np.int64)


@dataclass(frozen=True, slots=True)
class FirstTokens:
    """First tokens of requests, in order: their TTFTs, in seconds, and the tokens of their prompts that were computed.
    Two lists, since an object for each of them takes longer than the rest of its bookkeeping."""

    ttft_s: list[float] = field(default_factory=list)
    uncached_tokens: list[float] = field(default_factory=list)

    def clear(self) -> None:
        """Removes all."""
        self.ttft_s.clear()
        self.uncached_tokens.clear()


@dataclass(frozen=True, slots=True)
class Starting:
    """A replica that loads its model."""

    slot: int
    since: float


class ReplicaView(Protocol):
    """What a policy reads of a replica: a simulated one, or the mean one of a fluid."""

    @property
    def slot(self) -> int: ...
    @property
    def outstanding(self) -> int:
        """Requests that wait, prefill or decode."""

    @property
    def waiting(self) -> Sequence[int]:
        """Requests that are not admitted."""

    @property
    def prefilling(self) -> int: ...
    @property
    def decoding(self) -> int: ...
    @property
    def backlog_s(self) -> float:
        """Seconds of prefill work that is queued or in work."""

    @property
    def prompt_tokens(self) -> int:
        """Of outstanding requests."""

    @property
    def kv_resident(self) -> float:
        """Tokens of decoding sequences."""

    @property
    def kv_reserved(self) -> int:
        """Tokens that are reserved for admitted requests."""

    @property
    def step_now_s(self) -> float:
        """Seconds of a step of the present batch; 0 if there is none."""


@dataclass(frozen=True, slots=True)
class Observation:
    """The tier at the instant ``at``, in seconds from the start of the trace.

    ``ready`` are live objects: a policy reads them during ``decide`` and keeps none.
    """

    at: float
    target: int
    ready: Sequence[ReplicaView]
    starting: Sequence[Starting]
    draining: Sequence[ReplicaView]
    ready_since: Sequence[float]
    room: Sequence[int]  # prompt tokens of the requests that wait for a first replica
    room_since: float  # arrival of the first of them
    counters: Sequence[Counters]  # by class: interactive, batch
    latencies: Sequence[Latencies]  # by class
    first_tokens: Sequence[FirstTokens] | None = None
    """Those since the last call of ``decide``, by class. None: not known one by one."""

    @property
    def arrivals(self) -> int:
        """Requests since the start, of all classes."""
        return sum(each.arrivals for each in self.counters)

    @property
    def waiting(self) -> int:
        """Requests that have not started to prefill, in the waiting room or at replicas."""
        return len(self.room) + sum(len(each.waiting) + max(each.prefilling - 1, 0) for each in self.ready)

    @property
    def ongoing(self) -> int:
        """Requests that wait or run, anywhere."""
        return len(self.room) + sum(each.outstanding for each in self.ready)


class Policy(Protocol):
    """Says how many replicas there should be. Each simulation has a policy of its own, which may have state."""

    name: str
    interval_s: float  # between two calls of ``decide``

    def decide(self, seen: Observation) -> int:
        """Returns the target. The simulation keeps it within its bounds."""
