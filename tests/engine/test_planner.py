"""The planner's figures against the engine's own tensors and torch's count of operations."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from engine.engine import Engine
from engine.kv.planner import GIB, KVPlan, MemoryPlanError, bytes_per_token, prefill_flops
from engine.kv.shape import GroupShape
from engine.memory import available_bytes
from engine.model.configuration import read_spec, spec_of
from engine.model.spec import AttentionKind
from engine.plan import FORMATS, LLAMA_70B, lengths_up_to, table

USUAL = {"block_size": 16, "longest_chunk": 512, "sequences": 256}


@pytest.mark.parametrize("kv_dtype", FORMATS)
def test_a_cache_is_as_large_as_planned(model_path: Callable[[str], Path], kv_dtype: str) -> None:
    path = model_path("llama-tied")
    engine = Engine.from_pretrained(path, kv_cache_tokens=4096, kernels="torch", kv_dtype=kv_dtype)
    cache = engine._runner._cache  # type: ignore[attr-defined]
    # One block more is the page of zeros that stands for padding.
    shapes = (GroupShape(None, 256 + 1, 16, 512),)
    assert KVPlan(read_spec(path), FORMATS[kv_dtype], shapes).total_bytes == sum(layer.nbytes for layer in cache)


@pytest.mark.parametrize("length", [1, 7, 64])
def test_the_arithmetic_of_a_prefill_is_what_torch_counts(model_path: Callable[[str], Path], length: int) -> None:
    path = model_path("llama-tied")
    spec = read_spec(path)
    oracle = AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        oracle(torch.arange(2, length + 2)[None], logits_to_keep=1)
    # Eager attention also multiplies what the mask then hides.
    hidden = 4 * spec.num_heads * spec.head_dim * spec.num_layers * (length * length - length * (length + 1) // 2)
    assert prefill_flops(spec, length) == counter.get_total_flops() - hidden


def test_a_window_bounds_what_each_token_sees() -> None:
    spec = spec_of(LLAMA_70B)
    assert spec.kinds[0].rope is not None
    windowed = replace(spec, kinds=(AttentionKind(1_000, spec.kinds[0].rope),))
    per_pair = 4 * spec.num_heads * spec.head_dim * spec.num_layers
    hidden = sum(max(0, seen - 1_000) for seen in range(1, 5_001))
    assert prefill_flops(spec, 5_000) - prefill_flops(windowed, 5_000) == per_pair * hidden


@pytest.mark.parametrize(("heads", "gib"), [(8, 1.25), (64, 10.0)])
def test_a_70b_model_with_4096_tokens_takes_what_the_formula_says(heads: int, gib: float) -> None:
    spec = spec_of({**LLAMA_70B, "num_key_value_heads": heads})
    assert KVPlan(spec, FORMATS["bfloat16"], (GroupShape(None, 0, 16, 512),)).of_length(4_096).kv_bytes == gib * GIB


@pytest.mark.parametrize("memory", [0, 5_119, 5_120 * 16, 10**9])
def test_the_largest_cache_fits_and_a_block_more_does_not(memory: int) -> None:
    spec = spec_of(LLAMA_70B)
    plan = KVPlan.within(spec, FORMATS["bfloat16"], memory, **USUAL)
    assert plan.total_bytes <= memory < plan.total_bytes + 16 * bytes_per_token(spec, FORMATS["bfloat16"])
    plan.check(memory)


def test_windowed_layers_take_what_their_windows_need() -> None:
    spec = spec_of(LLAMA_70B)
    rope = spec.kinds[0].rope
    half = [replace(layer, kind=number % 2) for number, layer in enumerate(spec.layers)]
    hybrid = replace(spec, kinds=(AttentionKind(None, rope), AttentionKind(4_096, rope)), layers=tuple(half))
    whole, some = (
        KVPlan.within(one, FORMATS["bfloat16"], 40 * GIB, **USUAL).of_length(131_072) for one in (spec, hybrid)
    )
    bound = -(-(4_096 - 1 + 512) // 16) + 1
    assert some.kv_bytes == whole.kv_bytes // 2 + whole.kv_bytes // 2 * bound // (131_072 // 16)
    few = KVPlan.within(hybrid, FORMATS["bfloat16"], 40 * GIB, block_size=16, longest_chunk=512, sequences=4)
    assert few.of_length(131_072).sequences == 2 * whole.sequences - 1
    assert few.total_bytes <= 40 * GIB


def test_a_cache_larger_than_the_memory_is_refused_before_anything_is_loaded(
    model_path: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.backend.available_bytes", lambda _device: 100_000)
    with pytest.raises(MemoryPlanError, match=r"kv_cache_tokens: .* would fit"):
        Engine.from_pretrained(model_path("llama-tied"), kv_cache_tokens=65_536)


def test_available_memory_is_read_where_the_system_tells_it(tmp_path: Path) -> None:
    told = tmp_path / "meminfo"
    told.write_text("MemTotal:  100 kB\nMemFree: 7 kB\nMemAvailable:   42 kB\n")
    cpu = torch.device("cpu")
    assert available_bytes(cpu, told) == 42 * 1024
    assert available_bytes(cpu, tmp_path / "none") is None


def test_the_table_shows_each_length_beside_the_first() -> None:
    plan = KVPlan.within(spec_of(LLAMA_70B), FORMATS["bfloat16"], 40 * GIB, **USUAL)
    lines = table(plan, lengths_up_to(131_072)).splitlines()[1:]
    assert [line.split()[0] for line in lines] == ["4,096", "8,192", "16,384", "32,768", "65,536", "131,072"]
    assert [line.split()[-1] for line in lines] == ["32", "16", "8", "4", "2", "1"]
    assert [line.split()[2] for line in lines] == ["1.0x", "2.0x", "4.0x", "8.0x", "16.0x", "32.0x"]


def test_the_command_reads_a_model_directory(model_path: Callable[[str], Path]) -> None:
    command = [sys.executable, "-m", "engine.plan", str(model_path("llama-tied")), "--memory", "0.01"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "bytes per token" in done.stdout
