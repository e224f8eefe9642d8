"""Output tokens a second of this engine: 64 tokens in, 64 out, greedy, bfloat16, no prefix cache.

    python -m load_tests.engine.throughput MODEL 1 8 32

Prints a line for each number of requests at once. ``peers`` runs it beside other engines.
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path

from engine import Engine, SamplingParams

PROMPT, ANSWER = 64, 64  # tokens


def output_rate(engine: Engine, requests: int, draw: random.Random) -> float:
    """Tokens a second of one batch, from its start to its last token; a short one before it warms up."""
    prompts = [[draw.randrange(5, 8000) for _ in range(PROMPT)] for _ in range(requests)]
    engine.generate(prompts, SamplingParams(temperature=0, max_tokens=4, ignore_eos=True))
    began = time.perf_counter()
    answers = engine.generate(prompts, SamplingParams(temperature=0, max_tokens=ANSWER, ignore_eos=True))
    return sum(len(answer.token_ids) for answer in answers) / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("requests", type=int, nargs="+", help="at once")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--weight-dtype", default="auto")
    parser.add_argument("--kv-dtype", default="auto")
    parser.add_argument("--threads", type=int, help="of the kernels; by default as many as there are cores")
    options = parser.parse_args()
    engine = Engine.from_pretrained(
        options.model,
        dtype=options.dtype,
        weight_dtype=options.weight_dtype,
        kv_dtype=options.kv_dtype,
        prefix_caching=False,
        kv_cache_tokens=16_384,
        threads=options.threads,
    )
    draw = random.Random(0)
    for requests in options.requests:
        print(f"manta {options.model} n {requests} out tok/s {output_rate(engine, requests, draw):.1f}", flush=True)


if __name__ == "__main__":
    main()
