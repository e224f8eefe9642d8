"""What a run is told to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from load_tests.generator.target import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """One run. Closed loop with ``concurrency`` streams, or open loop when ``rate`` is set.

    It ends after ``duration`` seconds or ``requests`` requests, whichever comes first; what is under way then is
    waited for, up to ``timeout_s`` each.
    """

    target: Target
    model: str
    prompts: tuple[str, ...]
    concurrency: int = 8
    rate: float | None = None  # requests per second
    duration: float = 10.0  # seconds
    requests: int | None = None
    max_tokens: int = 64
    temperature: float = 0.0
    stream: bool = True
    ignore_eos: bool = False
    verify_alone: bool = False
    seed: int = 0
    timeout_s: float = 120.0
    max_in_flight: int = 2048  # of an open loop
    slo_ttft_s: float = 1.0
    slo_itl_s: float = 0.1
    server_pids: tuple[int, ...] = ()
    json: Path | None = None
    plot: Path | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        bounds = {
            "concurrency": (self.concurrency, 1, 4096),
            "rate": (self.rate, 0.001, 10_000),
            "duration": (self.duration, 0.01, 3600),
            "requests": (self.requests, 1, 1_000_000),
            "max_tokens": (self.max_tokens, 1, 100_000),
        }
        for name, (value, low, high) in bounds.items():
            if value is not None and not low <= value <= high:
                raise ValueError(f"{name} must be between {low} and {high}, got {value}")
        if self.verify_alone and self.temperature != 0:
            raise ValueError("verify-alone needs temperature 0: sampled answers differ by right")
