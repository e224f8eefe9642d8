"""The same load on this engine and on transformers' continuous batching, one after the other on one card."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig
from transformers.generation import ContinuousBatchingConfig

from engine import Engine, GenerationRequest, SamplingParams
from load_tests.gpu.figure import Bench, Case, Figure
from load_tests.gpu.serving import Load, Served, free
from load_tests.gpu.shapes import QWEN_8B, config_named, spec_named
from load_tests.gpu.weights import random_weights

Prompts = list[list[int]]


def cases(bench: Bench) -> Iterator[Case]:
    """One, with both engines: their ratio is what counts."""
    load = Load(2, 5, 4) if bench.dry else Load(64, 512, 64)
    yield Case(f"Qwen3-8B, {load.requests} x {load.prompt}/{load.steps}", partial(_compare, bench, load))


def _compare(bench: Bench, load: Load) -> list[Figure]:
    numbers = random.Random(1)
    vocabulary = spec_named(QWEN_8B, bench).vocab_size
    prompts = [[numbers.randrange(2, vocabulary) for _ in range(load.prompt)] for _ in range(load.requests)]
    tokens = load.requests * load.steps
    ours = tokens / _ours(bench, load, prompts)
    theirs = tokens / _theirs(bench, load, prompts)
    return [
        Figure("this engine", ours, "tokens/s", note=f"{ours / theirs:.2f} times transformers'"),
        Figure("transformers, continuous batching", theirs, "tokens/s", note="paged SDPA, its own CUDA graphs"),
    ]


def _ours(bench: Bench, load: Load, prompts: Prompts) -> float:
    """Seconds until all answers are complete, the second time."""
    spec = spec_named(QWEN_8B, bench)
    served = Served(bench, spec, random_weights(spec, bench), load)
    seconds = [_answer(served.engine, load, prompts, name) for name in ("a", "b")]
    del served
    free(bench)
    return seconds[-1]


def _answer(engine: Engine, load: Load, prompts: Prompts, name: str) -> float:
    params = SamplingParams(temperature=0, max_tokens=load.steps, ignore_eos=True)
    began = time.perf_counter()
    for index, prompt in enumerate(prompts):
        engine.add(GenerationRequest(f"{name}{index}", tuple(prompt), params))
    left = load.requests
    while left:
        left -= sum(delta.finish_reason is not None for delta in engine.step())
    return time.perf_counter() - began


@torch.inference_mode(mode=False)  # theirs works in a thread of its own, which would not be in that mode
def _theirs(bench: Bench, load: Load, prompts: Prompts) -> float:
    """Seconds until all answers are complete, the second time: the first captures graphs."""
    config = AutoConfig.for_model(**config_named(QWEN_8B, bench))
    with torch.device(bench.device):
        model: Any = AutoModelForCausalLM.from_config(config, dtype=bench.dtype, attn_implementation="sdpa")
    wish = GenerationConfig(max_new_tokens=load.steps, do_sample=False, eos_token_id=-1, pad_token_id=0)
    # On a card it takes what memory is free.
    settings = ContinuousBatchingConfig(num_blocks=8 if bench.dry else None, max_batch_tokens=8192)
    seconds = 0.0
    for _ in range(2):
        began = time.perf_counter()
        answers = model.eval().generate_batch(prompts, wish, continuous_batching_config=settings)
        seconds = time.perf_counter() - began
        found = sum(len(answer.generated_tokens) for answer in answers.values())
        if found != load.requests * load.steps:
            raise RuntimeError(f"transformers gave {found} tokens instead of {load.requests * load.steps}")
    return seconds
