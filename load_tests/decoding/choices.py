"""What eight answers to one prompt cost until the first token: the prompt is computed once.

    python -m load_tests.decoding.choices

Time to first token with n = 1 and n = 8, in turns, a new prompt each time; and the prompt tokens that were computed.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from pathlib import Path

from engine import Engine, SamplingParams
from engine.api import GenerationRequest
from load_tests.quality.options import MODELS

PROMPT = 512  # tokens


def first_token_s(engine: Engine, name: str, prompt: tuple[int, ...], n: int) -> float:
    """Seconds until the first token is out; the rest is given up."""
    began = time.perf_counter()
    engine.add(GenerationRequest(name, prompt, SamplingParams(n=n, seed=1, max_tokens=8, ignore_eos=True)))
    while not engine.step():
        pass
    took = time.perf_counter() - began
    engine.abort([name])
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=MODELS / "frontier")
    parser.add_argument("--pairs", type=int, default=31)
    options = parser.parse_args()
    engine = Engine.from_pretrained(options.model, dtype="bfloat16", prefix_caching=False)
    numbers = random.Random(0)
    times: dict[int, list[float]] = {1: [], 8: []}
    for turn in range(options.pairs + 1):
        for n, taken in times.items():
            prompt = tuple(numbers.randrange(3, engine.model_info.vocab_size) for _ in range(PROMPT))
            before = engine.stats().prompt_tokens
            taken.append(first_token_s(engine, f"{turn} {n}", prompt, n))
            assert engine.stats().prompt_tokens - before == PROMPT
    one, eight = (statistics.median(taken[1:]) for taken in times.values())
    ratio = statistics.median(b / a for a, b in zip(times[1][1:], times[8][1:], strict=True))
    print(f"prompt of {PROMPT} tokens, computed once: TTFT p50 {1e3 * one:.1f} ms with n = 1, {1e3 * eight:.1f} with 8")
    print(f"ratio {ratio:.3f} (median of {options.pairs} pairs; target 1.2)")


if __name__ == "__main__":
    main()
