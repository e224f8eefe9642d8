"""The compiled step computes what transformers does, and the same bits however the work is cut and shared."""

from __future__ import annotations

import ctypes
import logging
import math
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from engine import FinishReason, SamplingParams
from engine.kernels.cpu import compiler
from engine.kernels.cpu.compiler import CompilerError
from engine.kernels.cpu.packing import panels
from engine.kernels.cpu.runner import CompiledRunner
from engine.runner import Runner
from tests.engine.compiled import make_engine
from tests.engine.families import CONFIGS, Recorded, record, write_family
from tests.engine.models import VOCAB, ragged_prompts, write

GREEDY = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True)
FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3")
WAYS: dict[str, dict[str, Any]] = {
    "one token at a time": {"prefill_chunk": 1},
    "seven tokens at a time": {"prefill_chunk": 7},
    "two threads": {"threads": 2},
    "preempted": {"kv_cache_tokens": 416},
}


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A model of that family in a shape that the compiled step takes: whole panels everywhere."""

    @cache
    def make(name: str) -> Path:
        shape = {"hidden_size": 32, "head_dim": 16, "num_attention_heads": 4, "intermediate_size": 80}
        return write_family(name, tmp_path_factory.mktemp("compiled") / name, **shape)

    return make


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    return record(monkeypatch, CompiledRunner)


@pytest.mark.usefixtures("clear_choices")
@pytest.mark.parametrize("name", FAMILIES)
def test_logits_and_greedy_answers_are_those_of_transformers(
    directory: Callable[[str], Path], recorded: Recorded, name: str
) -> None:
    prompts = ragged_prompts(VOCAB)
    oracle: Any = AutoModelForCausalLM.from_pretrained(
        directory(name), local_files_only=True, dtype=torch.float32, attn_implementation="eager"
    )

    answers = [answer.token_ids for answer in make_engine(directory(name)).generate(prompts, GREEDY)]

    for number, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        with torch.inference_mode():
            logits = oracle(torch.tensor([[*prompt, *answer]]), use_cache=False).logits[0, len(prompt) - 1 : -1]
        found = torch.stack([recorded[str(number), len(prompt) + n] for n in range(len(answer))])
        torch.testing.assert_close(found, logits, rtol=0, atol=1e-4)
        assert answer == tuple(logits.argmax(-1).tolist())


@pytest.mark.parametrize(
    ("dtype", "kv_dtype"),
    [("float32", "auto"), ("bfloat16", "auto"), ("float32", "int8"), ("bfloat16", "int8"), ("bfloat16", "fp8")],
)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_every_way_to_cut_the_work_gives_the_same_bits(
    directory: Callable[[str], Path], recorded: Recorded, name: str, way: str, dtype: str, kv_dtype: str
) -> None:
    prompts = ragged_prompts(VOCAB)
    make_engine(directory(name), dtype=dtype, kv_dtype=kv_dtype).generate(prompts, GREEDY)
    plain = dict(recorded)
    recorded.clear()

    engine = make_engine(directory(name), dtype=dtype, kv_dtype=kv_dtype, **WAYS[way])
    engine.generate(prompts, GREEDY)

    assert recorded.keys() == plain.keys()
    assert all(torch.equal(recorded[key], plain[key]) for key in plain)
    engine.check_integrity()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_batch_a_warm_prefix_and_solitude_give_the_same_bits(
    directory: Callable[[str], Path], recorded: Recorded, dtype: str
) -> None:
    prompts = ragged_prompts(VOCAB)
    engine = make_engine(directory("qwen3"), dtype=dtype, prefix_caching=True)
    engine.generate(prompts, GREEDY)
    together = dict(recorded)
    recorded.clear()

    engine.generate(prompts, GREEDY)
    assert engine.stats().cached_tokens > 0
    assert all(torch.equal(recorded[key], together[key]) for key in together)

    recorded.clear()
    engine.generate([prompts[6]], GREEDY)
    assert all(torch.equal(row, together["6", position]) for (_, position), row in recorded.items())


def test_bfloat16_is_as_close_to_float32_as_torch_is(
    directory: Callable[[str], Path], recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = ragged_prompts(VOCAB)
    one = SamplingParams(temperature=0, max_tokens=1, ignore_eos=True)
    make_engine(directory("llama")).generate(prompts, one)
    exact = dict(recorded)
    of_torch = record(monkeypatch, Runner)

    make_engine(directory("llama"), dtype="bfloat16").generate(prompts, one)
    make_engine(directory("llama"), dtype="bfloat16", kernels="torch").generate(prompts, one)

    def error(found: Recorded) -> float:
        return math.hypot(*(float((found[key] - row).norm() / row.norm()) for key, row in exact.items()))

    assert 0 < error(recorded) < 1.1 * error(of_torch)


@pytest.mark.parametrize("kv_dtype", ["int8", "fp8", "bfloat16"])
@pytest.mark.parametrize(("dtype", "off"), [("float32", 0.01), ("bfloat16", 0.08)])
def test_every_kv_format_gives_what_torch_gives(
    directory: Callable[[str], Path],
    recorded: Recorded,
    monkeypatch: pytest.MonkeyPatch,
    kv_dtype: str,
    dtype: str,
    off: float,
) -> None:
    """Roundings of numbers on the edge between two may differ, which weighs little in the whole."""
    prompts = ragged_prompts(VOCAB)
    one = SamplingParams(temperature=0, max_tokens=1, ignore_eos=True)
    of_torch = record(monkeypatch, Runner)
    for name in ("llama", "gemma2"):
        make_engine(directory(name), dtype=dtype, kv_dtype=kv_dtype, prefill_chunk=7).generate(prompts, one)
        engine = make_engine(directory(name), dtype=dtype, kv_dtype=kv_dtype, prefill_chunk=7, kernels="torch")
        engine.generate(prompts, one)

        assert recorded.keys() == of_torch.keys()
        for key, row in of_torch.items():
            assert float((recorded[key] - row).norm() / row.norm()) < off


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("outputs", [16, 40])
def test_panels_hold_every_weight_once(dtype: torch.dtype, outputs: int) -> None:
    weight = torch.arange(1, outputs * 6 + 1).view(outputs, 6).to(dtype)

    packed = panels(weight)

    assert packed.shape[0] == -(-outputs // 16)
    assert sorted(packed[packed != 0].tolist()) == sorted(weight.flatten().tolist())


@pytest.mark.parametrize("name", ["gpt2", "mixtral", "olmo2"])
def test_what_the_compiled_step_does_not_know_runs_on_torch(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(AutoModelForCausalLM.from_config(CONFIGS[name]), tmp_path)
    with pytest.raises(ValueError, match="do not support"):
        make_engine(tmp_path)
    with caplog.at_level(logging.WARNING):
        engine = make_engine(tmp_path, kernels="auto")

    assert isinstance(engine._runner, Runner)
    assert "runs on torch" in caplog.text


def test_a_machine_without_a_compiler_runs_on_torch(
    directory: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = directory("llama")
    monkeypatch.setattr(compiler, "COMPILERS", ("no-such-compiler",))
    monkeypatch.setattr("engine.kernels.cpu.runner.loaded", lambda: compiler.built(tmp_path))

    with pytest.raises(CompilerError):
        make_engine(path)
    assert isinstance(make_engine(path, kernels="auto")._runner, Runner)


@pytest.mark.parametrize("level", ["x86-64-v2", "x86-64-v3", "x86-64-v4"])
def test_lesser_processors_compute_the_same(
    directory: Callable[[str], Path],
    recorded: Recorded,
    lesser_library: Callable[[str], ctypes.CDLL],
    monkeypatch: pytest.MonkeyPatch,
    level: str,
) -> None:
    """Registers of other widths, and no products of bfloat16 pairs."""
    library = lesser_library(f"-march={level}")
    prompts = ragged_prompts(VOCAB)
    one = SamplingParams(temperature=0, max_tokens=1, ignore_eos=True)
    formats = (("float32", "auto", 1e-4), ("float32", "fp8", 0.02), ("bfloat16", "int8", 0.08))
    usual = []
    for dtype, kv_dtype, _ in formats:
        make_engine(directory("qwen3"), dtype=dtype, kv_dtype=kv_dtype).generate(prompts, one)
        usual.append(dict(recorded))
        recorded.clear()

    monkeypatch.setattr("engine.kernels.cpu.runner.loaded", lambda: library)
    for (dtype, kv_dtype, off), expected in zip(formats, usual, strict=True):
        make_engine(directory("qwen3"), dtype=dtype, kv_dtype=kv_dtype).generate(prompts, one)
        for key, row in expected.items():
            assert float((recorded[key] - row).norm() / row.norm()) < off


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_scores_that_overflow_are_their_sequences_error(
    directory: Callable[[str], Path], tmp_path: Path, dtype: str
) -> None:
    """Though queries, keys and values are all finite."""
    path = tmp_path / "loud"
    shutil.copytree(directory("mistral"), path)
    weights = load_file(path / "model.safetensors")
    for name in ("q_proj", "k_proj"):
        weights[f"model.layers.1.self_attn.{name}.weight"] *= 1e25
    save_file(weights, path / "model.safetensors", {"format": "pt"})

    answers = make_engine(path, dtype=dtype).generate([[5, 6, 7], list(range(1, 66))], SamplingParams(max_tokens=2))

    assert [answer.finish_reason for answer in answers] == [FinishReason.ERROR] * 2


def test_threads_end_with_their_runner(directory: Callable[[str], Path]) -> None:
    def threads() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    engine = make_engine(directory("llama"), threads=4)
    running = threads()

    assert isinstance(engine._runner, CompiledRunner)
    engine._runner.close()
    assert threads() == running - 3
