"""Weights in eight and four bits: what is stored, and what is computed with it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from engine import SamplingParams
from engine.kernels.cpu.packing import coded_panels
from engine.kernels.cpu.runner import CompiledRunner
from engine.quant.format import GROUP, INT4, INT8, WeightFormat
from engine.quant.quantise import FORMATS, quantise
from engine.runner import Runner
from tests.engine.compiled import make_engine
from tests.engine.families import Recorded, record, write_family
from tests.engine.models import VOCAB, ragged_prompts, write
from tests.engine.rounding import MIN_STEPS, Rounding

ANSWER = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
LEVELS = {"int8": 256, "int4": 16}


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A model of that family whose matrices are whole groups."""

    @cache
    def make(name: str) -> Path:
        shape = {"hidden_size": 64, "head_dim": 16, "num_attention_heads": 4, "intermediate_size": 96}
        return write_family(name, tmp_path_factory.mktemp("rounded") / name, **shape)

    return make


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    return record(monkeypatch, CompiledRunner)


def oracle(path: Path, weight_dtype: str, rounding: Rounding) -> Any:
    """transformers' model with its linear layers rounded, and their inputs."""
    model: Any = AutoModelForCausalLM.from_pretrained(
        path, local_files_only=True, dtype=torch.float32, attn_implementation="eager"
    )
    formats = FORMATS[weight_dtype]
    with torch.no_grad():
        for name, layer in model.named_modules():
            if isinstance(layer, nn.Linear):
                form = formats.head if name == "lm_head" else formats.layers
                layer.weight = nn.Parameter(quantise(layer.weight, form).dequantised(torch.float32))
                layer.register_forward_pre_hook(rounding)
    return model


@pytest.mark.parametrize("weight_dtype", ["int8", "int4"])
@pytest.mark.parametrize("name", ["llama", "qwen2", "gemma3"])
def test_logits_are_those_of_the_rounded_model(
    directory: Callable[[str], Path], recorded: Recorded, name: str, weight_dtype: str
) -> None:
    """Where no input lies so close to the edge between two whole numbers that it may fall to either side: that is one
    token alone in five, and hardly ever two together."""
    prompts = [[token] for token in range(1, VOCAB)]
    engine = make_engine(directory(name), weight_dtype=weight_dtype, max_waiting=VOCAB)
    engine.generate(prompts, replace(ANSWER, max_tokens=1))
    rounding = Rounding()
    with torch.inference_mode():
        wanted = oracle(directory(name), weight_dtype, rounding)(torch.tensor(prompts), use_cache=False).logits[:, 0]

    clear = (rounding.margins >= MIN_STEPS).nonzero().flatten().tolist()
    assert len(clear) > 50
    for number in clear:
        torch.testing.assert_close(recorded[str(number), 1], wanted[number], rtol=0, atol=1e-4)


@pytest.mark.parametrize("weight_dtype", ["int8", "int4"])
@pytest.mark.parametrize("name", ["llama", "qwen2", "gemma3"])
def test_inputs_that_fall_to_the_other_side_weigh_little(
    directory: Callable[[str], Path], recorded: Recorded, name: str, weight_dtype: str
) -> None:
    prompts = ragged_prompts(VOCAB)
    answers = make_engine(directory(name), weight_dtype=weight_dtype).generate(prompts, ANSWER)
    rounded = oracle(directory(name), weight_dtype, Rounding())
    plain: Any = AutoModelForCausalLM.from_pretrained(directory(name), local_files_only=True, dtype=torch.float32)

    off, loss = [], []
    for number, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        found = torch.stack([recorded[str(number), len(prompt) + n] for n in range(len(answer.token_ids))])
        tokens = torch.tensor([[*prompt, *answer.token_ids]])
        with torch.inference_mode():
            wanted = rounded(tokens, use_cache=False).logits[0, len(prompt) - 1 : -1]
            exact = plain(tokens, use_cache=False).logits[0, len(prompt) - 1 : -1]
        off.append(float((found - wanted).norm() / wanted.norm()))
        loss.append(float((exact - wanted).norm() / exact.norm()))
    assert median(off) < 0.05 * median(loss)
    assert max(off) < 0.3 * max(loss)


@pytest.mark.parametrize("weight_dtype", ["int8", "int4"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "way",
    [{"prefill_chunk": 1}, {"prefill_chunk": 7}, {"threads": 2}, {"kv_cache_tokens": 416}],
    ids=["one at a time", "seven at a time", "two threads", "preempted"],
)
def test_every_way_to_cut_the_work_gives_the_same_bits(
    directory: Callable[[str], Path], recorded: Recorded, way: dict[str, Any], dtype: str, weight_dtype: str
) -> None:
    prompts = ragged_prompts(VOCAB)
    make_engine(directory("qwen2"), dtype=dtype, weight_dtype=weight_dtype).generate(prompts, ANSWER)
    plain = dict(recorded)
    recorded.clear()

    make_engine(directory("qwen2"), dtype=dtype, weight_dtype=weight_dtype, **way).generate(prompts, ANSWER)

    assert recorded.keys() == plain.keys()
    assert all(torch.equal(recorded[key], plain[key]) for key in plain)


@pytest.mark.parametrize("weight_dtype", ["int8", "int4", "w8a8", "fp8"])
@pytest.mark.parametrize("name", ["llama", "mixtral"])
def test_torch_computes_with_what_rounding_leaves(
    directory: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    name: str,
    weight_dtype: str,
) -> None:
    prompts = ragged_prompts(VOCAB)
    found = record(monkeypatch, Runner)
    model: Any = AutoModelForCausalLM.from_pretrained(directory(name), local_files_only=True, dtype=torch.float32)
    with torch.no_grad():
        for part, weight in model.named_parameters():
            if weight.ndim > 1 and ("proj" in part or "lm_head" in part):
                form = FORMATS[weight_dtype].head if "lm_head" in part else FORMATS[weight_dtype].layers
                weight.copy_(quantise(weight.flatten(0, -2), form).dequantised(weight.dtype).view_as(weight))
    write(model, tmp_path)
    make_engine(tmp_path, kernels="torch").generate(prompts, ANSWER)
    wanted = dict(found)
    found.clear()

    make_engine(directory(name), weight_dtype=weight_dtype, kernels="torch").generate(prompts, ANSWER)

    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], row) for key, row in wanted.items())


@pytest.mark.skipif(not torch.cpu._is_vnni_supported(), reason="this processor multiplies no bytes at once")
@pytest.mark.parametrize("weight_dtype", ["int8", "int4"])
def test_processors_without_products_of_bytes_compute_the_same(
    directory: Callable[[str], Path],
    recorded: Recorded,
    lesser_library: Callable[[str], ctypes.CDLL],
    monkeypatch: pytest.MonkeyPatch,
    weight_dtype: str,
) -> None:
    library = lesser_library("-mno-avx512vnni")
    prompts = ragged_prompts(VOCAB)
    make_engine(directory("qwen3"), weight_dtype=weight_dtype).generate(prompts, ANSWER)
    usual = dict(recorded)
    monkeypatch.setattr("engine.kernels.cpu.runner.loaded", lambda: library)

    make_engine(directory("qwen3"), weight_dtype=weight_dtype).generate(prompts, ANSWER)

    for key, row in usual.items():
        torch.testing.assert_close(recorded[key], row, rtol=0, atol=1e-4)


@pytest.mark.parametrize("form", [INT8, INT4], ids=lambda form: form.name)
def test_rounding_loses_no_more_than_half_a_step(form: WeightFormat) -> None:
    weight = torch.randn(24, 96, generator=torch.Generator().manual_seed(0))
    weight[3, 32:64] = 0
    weight[5, 7] = 40.0

    matrix = quantise(weight, form)

    step = matrix.scales.float().abs().repeat_interleave(96 // matrix.scales.shape[1], 1)
    error = (matrix.dequantised(torch.float32) - weight).abs()
    cut_off = (matrix.numbers == -form.lowest) | (matrix.numbers == form.highest)
    assert (error[~cut_off] <= step[~cut_off] / 2 + 1e-6).all()
    assert (error[3, 32:64] == 0).all()
    assert matrix.numbers.unique().numel() <= LEVELS[form.name]


def test_four_bits_lose_less_by_a_scale_that_is_sought() -> None:
    weight = torch.randn(64, 256, generator=torch.Generator().manual_seed(0))
    groups = weight.view(-1, GROUP)
    step = groups.gather(1, groups.abs().argmax(1, keepdim=True)) / -8
    usual = (groups / step).round().clamp(-8, 7) * step

    found = quantise(weight, INT4).dequantised(torch.float32)

    assert (found - weight).square().sum() < 0.95 * (usual.view_as(weight) - weight).square().sum()


@pytest.mark.parametrize("form", [INT8, INT4], ids=lambda form: form.name)
def test_panels_hold_every_number_once(form: WeightFormat) -> None:
    matrix = quantise(torch.randn(40, 64, generator=torch.Generator().manual_seed(0)), form)

    packed, scales = coded_panels(matrix, form)

    bits = 4 if form is INT4 else 8
    assert packed.numel() * 8 == 48 * 64 * bits
    assert scales.shape == ((3, 16) if form is INT8 else (3, 2, 16))
    parts = [packed] if bits == 8 else [packed & 15, packed >> 4]
    numbers = torch.cat([part.flatten() for part in parts]).int() - (128 if bits == 8 else 8)
    assert sorted(numbers[numbers != 0].tolist()) == sorted(matrix.numbers[matrix.numbers != 0].tolist())


def test_a_matrix_of_no_whole_groups_is_refused() -> None:
    with pytest.raises(ValueError, match="groups of 32"):
        quantise(torch.zeros(4, 40), INT4)
