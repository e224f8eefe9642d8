"""``EngineCountsSource``: the port to what the engines of all replicas have counted, for administrators who look.

``cluster.serve_engine_counts`` implements it by calls to the replicas. It is asked when an administrator asks, and by
nothing else: requests and autoscaling have numbers of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class EngineCounts:
    """The counts of one engine. ``waiting`` is of now, all else since the engine's start. Mappings are by scheduling
    class; latencies are counted by ``engine.api.LATENCY_BOUNDS_S``, and empty where none was."""

    waiting: Mapping[str, int] = field(default_factory=dict)  # sequences in the queue
    arrivals: Mapping[str, int] = field(default_factory=dict)  # requests, refused ones included
    refused: Mapping[str, int] = field(default_factory=dict)  # requests, because the queue was full
    ttft: Mapping[str, Sequence[int]] = field(default_factory=dict)  # times to the first token
    itl: Sequence[int] = ()  # times between tokens
    prompt_tokens: int = 0  # without cached ones
    cached_tokens: int = 0
    generated_tokens: int = 0


class EngineCountsSource(Protocol):
    """Reads the counts of the engines of all tiers."""

    async def read(self) -> Mapping[str, Sequence[EngineCounts]]:
        """Returns the counts of the replicas of each tier, by its name, from those that answer within 2 s. A tier whose
        replicas do not is missing."""
        ...


class NoEngineCounts:
    """Knows of no replicas. Implements ``EngineCountsSource``."""

    async def read(self) -> Mapping[str, Sequence[EngineCounts]]:
        return {}
