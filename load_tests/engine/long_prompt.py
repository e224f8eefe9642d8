"""Does a long prompt slow the answers beside it down?

    python -m load_tests.engine.long_prompt

Eight short requests decode, first alone, then while a prompt of 32,000 tokens is computed. The target: the 99th
percentile of their inter-token latency stays below twice what it is alone.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from engine import Engine, GenerationRequest, SamplingParams
from load_tests.engine.model import VOCAB, save_random_llama


@dataclass(frozen=True, slots=True)
class Measured:
    """Inter-token latencies of the short requests, in milliseconds."""

    situation: str
    steps: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    longest_ms: float
    seconds: float
    prompt_tokens: int

    @classmethod
    def of(cls, situation: str, gaps: list[float], prompt_tokens: int) -> Measured:
        ordered = sorted(1e3 * gap for gap in gaps)
        p50, p90, p99 = (ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in (0.5, 0.9, 0.99))
        return cls(situation, len(gaps), p50, p90, p99, ordered[-1], sum(gaps), prompt_tokens)


class Short:
    """Keeps ``count`` short requests running: one that ends is followed by another."""

    def __init__(self, engine: Engine, count: int) -> None:
        self._engine = engine
        self._numbers = random.Random(1)
        self._names = 0
        for _ in range(count):
            self.add()

    def add(self) -> None:
        """One more."""
        self._names += 1
        prompt = tuple(self._numbers.randrange(2, VOCAB) for _ in range(16))
        params = SamplingParams(temperature=0, max_tokens=self._numbers.randrange(100, 200), ignore_eos=True)
        self._engine.add(GenerationRequest(f"short-{self._names}", prompt, params))


def steps(engine: Engine, short: Short, seconds: float, until: str | None = None) -> list[float]:
    """Times between the tokens of the short requests: those of steps in which any got one. For ``seconds``, or until
    the request ``until`` gets its first token."""
    gaps: list[float] = []
    began = last = time.perf_counter()
    while last - began < seconds:
        deltas = engine.step()
        now = time.perf_counter()
        gaps.append(now - last)
        last = now
        for delta in deltas:
            if delta.request_id == until:
                return gaps
            if delta.finish_reason is not None and delta.request_id.startswith("short"):
                short.add()
    return gaps


def measure(directory: Path, options: argparse.Namespace) -> list[Measured]:
    """The short requests alone, beside the long prompt, and alone again: noise shows in the difference."""
    engine = Engine.from_pretrained(
        directory, kv_cache_tokens=options.tokens + 16_384, threads=options.threads, **options.engine
    )
    short = Short(engine, 8)
    steps(engine, short, 1.0)  # warm
    before = Measured.of("alone", steps(engine, short, options.seconds), 0)
    numbers = random.Random(2)
    prompt = tuple(numbers.randrange(2, VOCAB) for _ in range(options.tokens))
    engine.add(GenerationRequest("long", prompt, SamplingParams(temperature=0, max_tokens=1, ignore_eos=True)))
    beside = Measured.of("long prompt", steps(engine, short, options.limit, "long"), options.tokens)
    after = Measured.of("alone again", steps(engine, short, options.seconds), 0)
    return [before, beside, after]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=32_000, help="of the long prompt")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement without it")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds after which the long prompt is given up")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--engine", type=json.loads, default={}, help="settings of the engine, as JSON")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        found = measure(save_random_llama(Path(directory), 40_960), options)
    print(f"{'':14}{'steps':>8}{'p50 ms':>10}{'p90 ms':>10}{'p99 ms':>10}{'max ms':>10}{'s':>8}{'tokens/s':>10}")
    for one in found:
        print(
            f"{one.situation:14}{one.steps:8}{one.p50_ms:10.2f}{one.p90_ms:10.2f}{one.p99_ms:10.2f}"
            f"{one.longest_ms:10.2f}{one.seconds:8.1f}{one.prompt_tokens / one.seconds:10.0f}"
        )
    alone = min(found[0].p99_ms, found[2].p99_ms)
    print(f"p99 beside the long prompt: {found[1].p99_ms / alone:.2f} times what it is alone (target: 2)")
    print(f"p50 beside the long prompt: {found[1].p50_ms / found[0].p50_ms:.2f} times")
    if options.json:
        options.json.write_text(json.dumps([asdict(one) for one in found], indent=2))


if __name__ == "__main__":
    main()
