"""What is offered: classes, lengths and tenants, and when each request comes. An open loop: arrivals do not wait."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from load_tests.generator.arrivals import poisson
from load_tests.generator.target import Target

NOISY = "noisy"
TENANTS = ("one", "two", "three", NOISY)
WORDS = ("river", "stone", "quiet", "harbour", "under", "seven", "copper", "letter", "winter", "garden")


@dataclass(frozen=True, slots=True)
class TrafficClass:
    """A scheduling class of the load: its part of all requests, and its objective for the first token, in seconds.
    ``refuses``: the service knows the objective and refuses by it. ``queue`` is the most that wait."""

    name: str
    service_tier: str
    share: float
    objective_s: float
    refuses: bool = True
    queue: int = 256


CLASSES = (
    TrafficClass("interactive", "priority", 0.3, 1.0),
    TrafficClass("standard", "default", 0.5, 4.0),
    TrafficClass("batch", "flex", 0.2, 60.0, refuses=False, queue=64),
)


@dataclass(frozen=True, slots=True)
class Offered:
    """One request of the load. ``at`` is its instant, in seconds from the beginning."""

    at: float
    tenant: str
    traffic: TrafficClass
    words: int  # of its prompt
    max_tokens: int


def key_of(tenant: str) -> str:
    """Returns the API key of a tenant."""
    return f"sk-{tenant}"


def mixed(rate: float, seconds: float, seed: int, tenants: Sequence[str] = TENANTS[:3]) -> Iterator[Offered]:
    """Yields requests of all classes, lengths and ``tenants``, ``rate`` per second for ``seconds``."""
    draw = random.Random(seed)
    for at in poisson(rate, seconds, seed):
        (traffic,) = draw.choices(CLASSES, [each.share for each in CLASSES])
        yield Offered(at, draw.choice(tenants), traffic, draw.randint(16, 300), draw.randint(16, 192))


def request_bytes(target: Target, offered: Offered) -> bytes:
    """Returns the HTTP request. Prompts begin differently, so that none is in the prefix cache."""
    draw = random.Random(offered.at)
    words = " ".join(draw.choice(WORDS) for _ in range(offered.words))
    return target.request(
        {
            "model": "fast",
            "messages": [{"role": "user", "content": words}],
            "max_tokens": offered.max_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
            "ignore_eos": True,
            "service_tier": offered.traffic.service_tier,
        }
    )
