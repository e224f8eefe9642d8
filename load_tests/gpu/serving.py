"""The engine on a card: milliseconds of a token alone, tokens a second of many, and what its tricks are worth."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from engine import Engine, GenerationRequest, SamplingParams
from engine.config import EngineConfig, WeightDTypeName
from engine.kernels.triton.graphs import Uncaptured
from engine.kv.format import format_of
from engine.kv.planner import bytes_per_token
from engine.model.spec import ModelSpec
from engine.model.weights import ModelWeights
from engine.quant.quantise import packed_model, weight_formats
from load_tests.gpu.figure import Bench, Case, Figure
from load_tests.gpu.groups import packed_weights
from load_tests.gpu.shapes import LLAMA_8B, QWEN_8B, QWEN_SMALL, spec_named
from load_tests.gpu.weights import decoder_of, random_weights, read_bytes, small_tokenizer

TOKEN_TARGET_MS = 4.5  # of Llama-3.1-8B in bfloat16, alone, on an H200
OUTPUT_TARGET = 7100  # tokens a second of Qwen3-8B, 256 x 1k/1k, on an H200
LARGEST = 12  # number of kernels reported for a step


@dataclass(frozen=True, slots=True)
class Load:
    """Requests that come at once, tokens of each prompt, and steps over which decoding is measured."""

    requests: int
    prompt: int
    steps: int


class Served:
    """An engine under one load."""

    def __init__(
        self,
        bench: Bench,
        spec: ModelSpec,
        weights: ModelWeights,
        load: Load,
        deterministic: bool = False,
        answer: int | None = None,
    ) -> None:
        """``answer``: tokens after each prompt that there is room for."""
        self.bench, self.spec, self.load = bench, spec, load
        self._room = load.prompt + (12 * load.steps if answer is None else answer) + 64
        config = EngineConfig(
            model="random",
            dtype="float32" if bench.dry else "bfloat16",
            device="cpu" if bench.dry else "cuda",
            kernels="triton",
            deterministic=deterministic,
            context_length=self._room,
            kv_cache_tokens=-(-self._room // 16) * 16 * load.requests,
            max_sequences=load.requests,
            max_batch_tokens=8192,
            prefill_chunk=2048,
            prefix_caching=False,
            max_decode_slowdown=None,  # throughput is what is wanted
        )
        self.form = format_of(config.kv_dtype, bench.dtype)
        began = time.perf_counter()
        self.engine = Engine(config, decoder_of(spec, weights, bench, deterministic), small_tokenizer())
        self.settle()
        self.built_s = time.perf_counter() - began

    def settle(self) -> None:
        """Waits for the device."""
        if not self.bench.dry:
            torch.cuda.synchronize()

    def begin(self, name: str = "r") -> float:
        """Adds all requests; seconds until each has its first token."""
        numbers = random.Random(1)
        params = SamplingParams(temperature=0.8, seed=1, max_tokens=self._room - self.load.prompt - 1, ignore_eos=True)
        began = time.perf_counter()
        for index in range(self.load.requests):
            prompt = tuple(numbers.randrange(2, self.spec.vocab_size) for _ in range(self.load.prompt))
            self.engine.add(GenerationRequest(f"{name}{index}", prompt, params))
        waiting = {f"{name}{index}" for index in range(self.load.requests)}
        while waiting:
            waiting -= {delta.request_id for delta in self.engine.step() if delta.token_ids}
        return time.perf_counter() - began

    def end(self) -> None:
        """Ends all requests that ``begin`` added under its usual name."""
        self.engine.abort([f"r{index}" for index in range(self.load.requests)])

    def step_s(self) -> float:
        """Seconds of a step in steady decoding."""
        for _ in range(2):
            self.engine.step()
        self.settle()
        began = time.perf_counter()
        tokens = sum(len(delta.token_ids) for _ in range(self.load.steps) for delta in self.engine.step())
        seconds = time.perf_counter() - began
        if tokens != self.load.steps * self.load.requests:
            raise RuntimeError(f"{tokens} tokens in {self.load.steps} steps of {self.load.requests} requests")
        return seconds / self.load.steps

    def kernels(self) -> dict[str, tuple[float, float]]:
        """Seconds and launches of each kernel in a step, by torch's profiler."""
        steps = min(8, self.load.steps)
        activity = torch.profiler.ProfilerActivity
        with torch.profiler.profile(activities=[activity.CPU if self.bench.dry else activity.CUDA]) as profile:
            for _ in range(steps):
                self.engine.step()
            self.settle()
        return {
            event.key: (event.self_device_time_total / 1e6 / steps, event.count / steps)
            for event in profile.key_averages()
            if event.self_device_time_total
        }

    def whole_s(self, answer: int) -> float:
        """Seconds from the first of all requests until all have their ``answer`` tokens."""
        numbers = random.Random(2)
        params = SamplingParams(temperature=0.8, seed=1, max_tokens=answer, ignore_eos=True)
        began = time.perf_counter()
        for index in range(self.load.requests):
            prompt = tuple(numbers.randrange(2, self.spec.vocab_size) for _ in range(self.load.prompt))
            self.engine.add(GenerationRequest(f"whole{index}", prompt, params))
        tokens, left = 0, self.load.requests
        while left:
            for delta in self.engine.step():
                tokens += len(delta.token_ids)
                left -= delta.finish_reason is not None
        seconds = time.perf_counter() - began
        if tokens != self.load.requests * answer:
            raise RuntimeError(f"{tokens} tokens in {self.load.requests} answers of {answer}")
        return seconds

    def switch(self, *, ahead: bool, graphs: bool) -> None:
        """Turns off what the runner does to keep the device busy; it is not turned on again."""
        runner: Any = self.engine._runner
        if not ahead:
            runner._look_ahead = lambda chunks: None
        if not graphs:
            runner._steps = Uncaptured(runner._decode)


def cases(bench: Bench) -> Iterator[Case]:
    """The two targets first."""
    tiny = Load(2, 5, 1)
    yield Case("Llama-3.1-8B alone", partial(_alone, bench, LLAMA_8B, tiny if bench.dry else Load(1, 128, 64)))
    yield Case("Qwen3-8B, 256 requests", partial(_many, bench, tiny if bench.dry else Load(256, 1024, 16)))
    if not bench.dry:  # the same code as the first
        yield Case("Qwen3-0.6B alone", partial(_alone, bench, QWEN_SMALL, Load(1, 128, 64)))
    yield Case("Llama-3.1-8B, formats", partial(_formats, bench, tiny if bench.dry else Load(1, 128, 32)))


def _limit_s(served: Served, weight_bytes: int) -> float | None:
    """Seconds of a step that reads weights and cache as fast as memory is copied."""
    most = served.bench.limits.get("copy")
    cache = served.load.requests * served.load.prompt * bytes_per_token(served.spec, served.form)
    return (weight_bytes + cache) / most if most else None


def _figure(name: str, served: Served, seconds: float, weight_bytes: int, target: float | None = None) -> Figure:
    limit = _limit_s(served, weight_bytes)
    share = limit / seconds if limit else None
    good = None if target is None or served.bench.dry else 1e3 * seconds <= target
    wanted = "" if target is None else f"<= {target} ms"
    note = f"{served.load.requests / seconds:.1f} tokens/s"
    return Figure(name, 1e3 * seconds, "ms/step", share, "copy", wanted, good, note)


def _alone(bench: Bench, model: str, load: Load) -> list[Figure]:
    spec = spec_named(model, bench)
    began = time.perf_counter()
    weights = random_weights(spec, bench)
    if not bench.dry:
        torch.cuda.synchronize()
    made = time.perf_counter() - began
    size = read_bytes(weights)
    target = TOKEN_TARGET_MS if model == LLAMA_8B else None
    served = Served(bench, spec, weights, load)
    first = served.begin()
    served.end()
    warm = served.begin("w")
    figures = [
        Figure("start: weights", made, "s", note="random, made on the card"),
        Figure("start: engine", served.built_s, "s"),
        Figure("start: first token", first, "s", note="compiles kernels, unless they are in Triton's cache"),
        Figure("first token, warm", 1e3 * warm, "ms"),
    ]
    before = time.perf_counter()
    served.engine.step()
    served.settle()
    figures.append(Figure("start: a further step", time.perf_counter() - before, "s", note="captured already"))
    return figures + _switched(served, size, target) + _exact(bench, spec, weights, load, size)


def _switched(served: Served, size: int, target: float | None) -> list[Figure]:
    """As it is; how busy the device is; then without looking ahead, and without graphs too."""
    seconds = served.step_s()
    figures = [_figure("decode", served, seconds, size, target)]
    figures += _shares(served.kernels(), seconds)
    served.switch(ahead=False, graphs=True)
    figures.append(_figure("decode, not ahead", served, served.step_s(), size))
    served.switch(ahead=False, graphs=False)
    figures.append(_figure("decode, not ahead, no graphs", served, served.step_s(), size))
    return figures


def _shares(kernels: dict[str, tuple[float, float]], step_s: float) -> list[Figure]:
    """How busy the device is in a step, and with what."""
    busy = sum(seconds for seconds, _ in kernels.values())
    figures = [Figure("device busy", busy / step_s, "of a step", note="kernels by the profiler / step without it")]
    for name, (seconds, count) in sorted(kernels.items(), key=lambda each: -each[1][0])[:LARGEST]:
        told = f"{count:.0f} launches, {1e6 * seconds / max(count, 1):.1f} us each, {seconds / step_s:.1%} of a step"
        figures.append(Figure(f"  {name[:60]}", 1e3 * seconds, "ms/step", note=told))
    return figures


def _exact(bench: Bench, spec: ModelSpec, weights: ModelWeights, load: Load, size: int) -> list[Figure]:
    served = Served(bench, spec, weights, load, deterministic=True)
    served.begin()
    return [_figure("decode, deterministic", served, served.step_s(), size)]


def _many(bench: Bench, load: Load) -> list[Figure]:
    """Of 1,024 tokens each: prompts, some steps of decoding, and whole answers of 1,024 tokens, from the first request
    to the last token."""
    spec = spec_named(QWEN_8B, bench)
    weights = random_weights(spec, bench)
    size = read_bytes(weights)
    served = Served(bench, spec, weights, load)
    served.begin()  # compiles, captures
    served.end()
    prefill = served.begin("w")
    tokens = load.requests * load.prompt
    flops = 2.0 * tokens * (size - weights.head.nbytes) / bench.dtype.itemsize
    name = f"prefill {load.requests} x {load.prompt}"
    share = bench.share(flops / prefill, "matmul")
    figures = [Figure(name, prefill, "s", share, "matmul", note=f"{tokens / prefill:.0f} tokens/s, products only")]
    figures += _switched(served, size, None)
    steady = load.requests / (figures[1].value / 1e3)
    figures.append(Figure("steady output", steady, "tokens/s", note=f"at {load.prompt} tokens each"))
    del served
    free(bench)
    answer = 4 if bench.dry else 1024
    served = Served(bench, spec, weights, load, answer=answer)
    seconds = served.whole_s(answer)
    good = None if bench.dry else load.requests * answer / seconds >= OUTPUT_TARGET
    target = f">= {OUTPUT_TARGET}"
    rate = load.requests * answer / seconds
    figures.append(Figure("1k in, 1k out", rate, "tokens/s", target=target, good=good, note=f"{seconds:.1f} s in all"))
    del served
    free(bench)
    return figures + _exact(bench, spec, weights, load, size)


def _formats(bench: Bench, load: Load) -> list[Figure]:
    """Weights in fewer bits: rounded by this engine, and as GGUF files have them."""
    spec = spec_named(LLAMA_8B, bench)
    figures = []
    names: tuple[WeightDTypeName, ...] = ("int8",) if bench.dry else ("int8", "int4", "w8a8", "fp8")
    for name in names:
        formats = weight_formats(name)
        assert formats is not None
        figures.append(_decoded(bench, name, packed_model(random_weights(spec, bench), formats, release=True), load))
    kinds = ("Q4_1",) if bench.dry else ("Q4_0", "Q4_1", "Q8_0")
    stored = (_decoded(bench, kind, packed_weights(kind, random_weights(spec, bench)), load) for kind in kinds)
    return [*figures, *stored]


def _decoded(bench: Bench, name: str, weights: ModelWeights, load: Load) -> Figure:
    free(bench)
    served = Served(bench, spec_named(LLAMA_8B, bench), weights, load)
    served.begin()
    figure = _figure(f"decode {name}", served, served.step_s(), read_bytes(weights))
    del served, weights
    free(bench)
    return figure


def free(bench: Bench) -> None:
    """Gives memory back to the card that nobody refers to any more."""
    import gc

    gc.collect()
    if not bench.dry:
        torch.cuda.empty_cache()
