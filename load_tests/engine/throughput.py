"""Tokens a second of this engine: 64 tokens in and 64 out, or prompts with one token out; greedy, no prefix cache.

    python -m load_tests.engine.throughput MODEL 1 8 32 8:512 1:2048 1:8192

Prints one line per case. A case ``N`` gives the output tokens per second of N concurrent requests; a case ``N:LENGTH``
gives the prompt tokens per second of N prompts of LENGTH tokens. ``peers`` runs it beside other engines.
"""

from __future__ import annotations

import argparse
import json

from engine import Engine, SamplingParams
from load_tests.engine.cases import Prompts, add_arguments, bench
from load_tests.engine.unpacked import unpacked_engine

KV_CACHE_TOKENS = 16_384  # holds the largest case, 8,192 tokens, and 32 requests of 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--weight-dtype", default="auto")
    parser.add_argument("--kv-dtype", default="auto")
    parser.add_argument("--threads", type=int, help="of the kernels; by default as many as there are cores")
    parser.add_argument("--unpacked", action="store_true", help="a GGUF file's matrices unpacked to --dtype at load")
    parser.add_argument("--engine", type=json.loads, default={}, help="further settings of the engine, as JSON")
    options = parser.parse_args()
    load = unpacked_engine if options.unpacked else Engine.from_pretrained
    engine = load(
        options.model,
        dtype=options.dtype,
        weight_dtype=options.weight_dtype,
        kv_dtype=options.kv_dtype,
        prefix_caching=False,
        threads=options.threads,
        **{"kv_cache_tokens": KV_CACHE_TOKENS, **options.engine},
    )

    def generate(prompts: Prompts, answer: int) -> int:
        answers = engine.generate(prompts, SamplingParams(temperature=0, max_tokens=answer, ignore_eos=True))
        return sum(len(each.token_ids) for each in answers)

    bench("manta", options, lambda case: generate)


if __name__ == "__main__":
    main()
