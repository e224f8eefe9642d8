"""What does a shared prefix save, and what does looking for one cost when there is none?

    python -m load_tests.engine.prefix

First 32 requests that share 512 tokens arrive at once, with the prefix cache and without; then as many that share
nothing, with and without in turns, so that whatever slows the machine slows both.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from pathlib import Path

from engine import Engine, GenerationRequest, SamplingParams

MODEL = Path(__file__).resolve().parents[2] / "deployments" / "models" / "frontier"
OWN = 32  # tokens after the shared ones


def serve(engine: Engine, prompts: list[tuple[int, ...]], answer: int) -> tuple[float, list[float]]:
    """All prompts at once: seconds until the last has ended, and each one's time to its first token."""
    params = SamplingParams(temperature=0, max_tokens=answer, ignore_eos=True)
    began = time.perf_counter()
    for number, prompt in enumerate(prompts):
        engine.add(GenerationRequest(str(number), prompt, params))
    first: dict[str, float] = {}
    while engine.has_work:
        for delta in engine.step():
            first.setdefault(delta.request_id, time.perf_counter() - began)
    return time.perf_counter() - began, list(first.values())


def prompts_of(draw: random.Random, count: int, shared: int, own: int) -> list[tuple[int, ...]]:
    """Random prompts that begin with the same ``shared`` tokens."""
    prefix = [draw.randrange(10, 4000) for _ in range(shared)]
    return [tuple(prefix + [draw.randrange(10, 4000) for _ in range(own)]) for _ in range(count)]


def first_tokens(with_cache: Engine, without: Engine, draw: random.Random, options: argparse.Namespace) -> None:
    """Prints TTFT on shared prefixes: each round a new prefix, which one request before the others has brought in."""
    warm: list[float] = []
    cold: list[float] = []
    for _ in range(options.rounds):
        prompts = prompts_of(draw, options.requests + 1, options.prefix, OWN)
        for engine, times in ((with_cache, warm), (without, cold)):
            serve(engine, prompts[:1], 1)
            times += serve(engine, prompts[1:], 8)[1]
    warm_ms, cold_ms = 1e3 * statistics.median(warm), 1e3 * statistics.median(cold)
    print(
        f"{options.requests} requests, {options.prefix} tokens shared and {OWN} of their own, {options.rounds} rounds"
    )
    print(
        f"TTFT p50 without {cold_ms:.1f} ms, with {warm_ms:.1f} ms: {cold_ms / warm_ms:.2f} times as fast (target: 4)"
    )


def cost_of_missing(with_cache: Engine, without: Engine, draw: random.Random, options: argparse.Namespace) -> None:
    """Prints the median of paired runs on prompts that share nothing."""
    ratios = []
    for number in range(options.pairs):
        prompts = prompts_of(draw, options.requests, 0, 256)
        seconds = {}
        order = (with_cache, without) if number % 2 else (without, with_cache)
        for engine in order:
            seconds[engine is with_cache] = serve(engine, prompts, 32)[0]
        ratios.append(seconds[True] / seconds[False])
    low, _, high = statistics.quantiles(ratios, n=4)
    print(f"{options.requests} requests that share nothing, 256 tokens and 32 out, {options.pairs} pairs of runs")
    print(
        f"time with the cache over without: median {statistics.median(ratios):.4f} (quartiles {low:.4f}, {high:.4f}; "
        "target: below 1.01)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--requests", type=int, default=32)
    parser.add_argument("--prefix", type=int, default=512, help="tokens that are shared")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=21)
    parser.add_argument("--dtype", default="bfloat16")
    options = parser.parse_args()
    settings = {"kv_cache_tokens": 65_536, "dtype": options.dtype}
    with_cache = Engine.from_pretrained(options.model, **settings)
    without = Engine.from_pretrained(options.model, prefix_caching=False, **settings)
    draw = random.Random(0)
    for engine in (with_cache, without):
        serve(engine, prompts_of(draw, options.requests, 0, 64), 8)  # warm up
    first_tokens(with_cache, without, draw, options)
    cost_of_missing(with_cache, without, draw, options)


if __name__ == "__main__":
    main()
