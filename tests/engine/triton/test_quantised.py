"""Quantised weights: packed, read by Triton's kernels and by the reference, and in a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine import Engine, SamplingParams
from engine.kernels.cpu.packing import PackedModel
from engine.kernels.reference import ReferenceKernels
from engine.kernels.triton.matmul import new_arrivals
from engine.kernels.triton.quantised import KINDS, MAX_INPUTS, quantised_matmul, round_rows
from engine.kernels.triton.tiling import Tiling
from engine.kv.format import format_of
from engine.kv.shape import GroupShape
from engine.model.configuration import read_spec
from engine.model.loader import load_weights
from engine.model.source import open_model
from engine.model.weights import ModelWeights, plain
from engine.quant.format import FP8, INT4, INT8, W8A8, WeightFormat
from engine.quant.matrix import PackedMatrix, packed, quantised_rows, rounded_rows
from engine.quant.quantise import WeightFormats, packed_model, quantise, rounded_model, weight_formats
from engine.runner import Runner
from tests.engine.families import record
from tests.engine.models import VOCAB, ragged_prompts

FORMS = list(KINDS)
DTYPES = [torch.float32, torch.float16] + [torch.bfloat16] * torch.cuda.is_available()
SMALL = Tiling(16, 64, 32, 4, 2, programs=4, group=2)
TALL = Tiling(64, 64, 32, 4, 2, programs=4, group=2)
STEP = {W8A8: 1 / 254, FP8: 1 / 16}  # half of one: of a row's largest number; of a float8, relative to the number
by_name = pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)


def drawn(*shape: int, dtype: torch.dtype, device: torch.device, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype).to(device)


def weights_of(outputs: int, inputs: int, form: WeightFormat, device: torch.device) -> PackedMatrix:
    """Some of them far larger than others, so that a scale taken from elsewhere is seen."""
    weight = drawn(outputs, inputs, dtype=torch.float32, device=device, seed=1)
    weight *= torch.linspace(0.5, 3, outputs, device=device).unsqueeze(1) * torch.linspace(
        0.2, 2, inputs, device=device
    )
    return packed(quantise(weight, form), form)


def assert_product(found: Tensor, x: Tensor, weight: PackedMatrix, bias: Tensor | None) -> None:
    """As in float64 of the numbers that are multiplied, but for a sum in float32 and one rounding."""
    form = weight.form
    left = x.double()
    if form.rounds_inputs:
        numbers, scales = round_rows(x, form)
        left = numbers.double() * scales.double().unsqueeze(1)
    # Weights with a scale for each group are rounded once scaled; scales of outputs are applied to the sums.
    right = weight.dequantised(torch.float32 if form.group is None else x.dtype).double()
    wanted = left @ right.t()
    size = float((left.abs() @ right.abs().t()).max())
    if bias is not None:
        wanted += bias.double()
    torch.testing.assert_close(found.double(), wanted, rtol=torch.finfo(found.dtype).eps, atol=size * rounding(form, x))


def rounding(form: WeightFormat, x: Tensor) -> float:
    """Of a sum: float32's, but the tensor cores of a card keep 14 bits of one of float8."""
    return 2**-14 if form is FP8 and x.is_cuda else 1e-6


@by_name
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(1, 256, 70), (5, 96, 64), (33, 160, 48), (200, 128, 130)], ids=str)
def test_a_product_is_that_of_float64(
    device: torch.device, form: WeightFormat, dtype: torch.dtype, shape: tuple[int, int, int]
) -> None:
    rows, inputs, outputs = shape
    x = drawn(rows, inputs, dtype=dtype, device=device)
    bias = drawn(outputs, dtype=dtype, device=device, seed=2) if rows % 2 else None
    weight = weights_of(outputs, inputs, form, device)

    found = quantised_matmul(x, weight, bias, new_arrivals(device), tile=TALL if rows > 100 else SMALL)

    assert found.dtype == dtype
    assert_product(found, x, weight, bias)


@by_name
@settings(max_examples=12, deadline=None)
@given(
    rows=st.integers(0, 40),
    groups=st.integers(1, 12),
    outputs=st.integers(1, 150),
    programs=st.integers(1, 24),
    fixed=st.booleans(),
)
def test_any_shape_may_be_cut_in_any_way(
    device: torch.device, form: WeightFormat, rows: int, groups: int, outputs: int, programs: int, fixed: bool
) -> None:
    x = drawn(rows, groups * 32, dtype=torch.float32, device=device)
    weight = weights_of(outputs, groups * 32, form, device)
    arrivals = new_arrivals(device)

    found = quantised_matmul(x, weight, None, arrivals, fixed=fixed, tile=Tiling(16, 32, 32, 4, 2, programs))

    assert found.shape == (rows, outputs)
    if rows:
        assert_product(found, x, weight, None)
    assert not arrivals.any()


@by_name
def test_the_usual_tiles_serve_few_rows_and_many(device: torch.device, form: WeightFormat) -> None:
    weight = weights_of(80, 1056, form, device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float16
    for rows in (2, 40, 70):
        x = drawn(rows, 1056, dtype=dtype, device=device)
        assert_product(quantised_matmul(x, weight, None, new_arrivals(device)), x, weight, None)


@by_name
@pytest.mark.parametrize("tile", [SMALL, None], ids=["small tiles", "usual tiles"])
def test_a_row_has_the_same_bits_alone_and_among_others(
    device: torch.device, form: WeightFormat, tile: Tiling | None
) -> None:
    x = drawn(200 if device.type == "cuda" else 40, 320, dtype=DTYPES[-1], device=device)
    weight = weights_of(70, 320, form, device)
    arrivals = new_arrivals(device)
    together = quantised_matmul(x, weight, None, arrivals, fixed=True, tile=tile)

    for first, last in [(0, 1), (3, 20), (39, 40)]:
        alone = quantised_matmul(x[first:last], weight, None, arrivals, fixed=True, tile=tile)
        assert torch.equal(alone, together[first:last])


@by_name
def test_the_reference_multiplies_the_same_numbers(device: torch.device, form: WeightFormat) -> None:
    x, weight = drawn(7, 96, dtype=torch.float32, device=device), weights_of(40, 96, form, device)
    bias = drawn(40, dtype=torch.float32, device=device, seed=2)

    wanted = ReferenceKernels().linear(x, weight, bias)

    off = quantised_matmul(x, weight, bias, new_arrivals(device), tile=SMALL) - wanted
    assert off.norm() < rounding(form, x) * wanted.norm()


@pytest.mark.parametrize("form", STEP, ids=lambda form: form.name)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("inputs", [1, 70, 2000])
@pytest.mark.parametrize("magnitude", [1e-3, 1.0, 100.0])
def test_rows_are_rounded_as_by_torch(
    device: torch.device, dtype: torch.dtype, form: WeightFormat, inputs: int, magnitude: float
) -> None:
    x = (drawn(4, inputs, dtype=torch.float32, device=device) ** 3 * magnitude).to(dtype)
    x[1] = 0

    numbers, scales = round_rows(x, form)

    # On a card torch divides by a number by multiplying with its inverse.
    wanted, by_row = quantised_rows(x.cpu(), form)
    assert torch.equal(scales.cpu(), by_row)
    assert torch.equal(numbers.cpu().view(torch.uint8), wanted.view(torch.uint8))


def test_what_lies_between_two_numbers_is_rounded_to_the_even_one(device: torch.device) -> None:
    """The largest makes the scale one. Numbers of float8 are an eighth apart from one on, and 2**-9 below 2**-6."""
    x = torch.tensor([[127.0, 0.5, 1.5, 2.5, -0.5, -3.5]], device=device)
    assert round_rows(x, W8A8)[0].tolist() == [[127, 0, 2, 2, 0, -4]]

    x = torch.tensor([[448.0, 1.0625, 1.1875, 1.9375, -1.0625, 1.5 * 2**-9, -(2**-10)]], device=device)
    assert round_rows(x, FP8)[0].float().tolist() == [[448.0, 1.0, 1.25, 2.0, -1.0, 2**-8, 0.0]]


@pytest.mark.parametrize("form", STEP, ids=lambda form: form.name)
@given(seed=st.integers(0, 2**32), magnitude=st.floats(1e-3, 1e3))
def test_rounded_rows_lose_no_more_than_half_a_step(form: WeightFormat, seed: int, magnitude: float) -> None:
    x = drawn(3, 70, dtype=torch.float32, device=torch.device("cpu"), seed=seed) * magnitude

    error = (rounded_rows(x, form) - x).abs()

    largest = x.abs().amax(1, keepdim=True)
    allowed = STEP[form] * (largest if form is W8A8 else x.abs()) + largest / 448 * 2**-10 * (form is FP8)
    assert (error <= allowed * 1.001).all()


@by_name
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # of numpy in the interpreter
def test_what_is_no_number_stays_in_its_row(device: torch.device, form: WeightFormat, bad: float) -> None:
    x = drawn(20, 64, dtype=torch.float32, device=device)
    x[3, 5] = bad

    found = quantised_matmul(x, weights_of(40, 64, form, device), None, new_arrivals(device), tile=SMALL)

    assert found.isfinite().all(1).tolist() == [row != 3 for row in range(20)]


def test_sums_that_int32_does_not_hold_are_refused(device: torch.device) -> None:
    inputs = MAX_INPUTS + 1
    numbers = torch.zeros(1, inputs, dtype=torch.int8, device=device)
    weight = PackedMatrix(W8A8, 1, inputs, numbers, torch.ones(1, device=device))

    with pytest.raises(ValueError, match="w8a8"):
        quantised_matmul(torch.zeros(1, inputs, device=device), weight, None, new_arrivals(device))


@by_name
@settings(max_examples=20, deadline=None)
@given(outputs=st.integers(1, 20), groups=st.integers(1, 12), seed=st.integers(0, 2**32))
def test_packing_loses_nothing(form: WeightFormat, outputs: int, groups: int, seed: int) -> None:
    weight = drawn(outputs, groups * 32, dtype=torch.float32, device=torch.device("cpu"), seed=seed)
    matrix = quantise(weight, form)

    back = packed(matrix, form).unpacked()

    assert torch.equal(back.numbers.view(torch.uint8), matrix.numbers.view(torch.uint8))
    assert torch.equal(back.scales, matrix.scales)


@pytest.mark.parametrize(("form", "bytes_"), [(INT8, 64 * 132), (INT4, 64 * 72), (W8A8, 64 * 132), (FP8, 64 * 132)])
def test_a_packed_matrix_takes_what_its_format_says(form: WeightFormat, bytes_: int) -> None:
    assert packed(quantise(torch.ones(64, 128), form), form).nbytes == bytes_


def prepared(directory: Path, name: Any) -> tuple[ModelWeights, WeightFormats]:
    weights = load_weights(open_model(directory), torch.float32, torch.device("cpu"))
    formats = weight_formats(name)
    assert formats is not None
    return weights, formats


@pytest.mark.parametrize("model", ["llama-tied", "llama-untied"])
@pytest.mark.parametrize("release", [False, True], ids=["", "release"])
def test_a_packed_model_answers_as_the_rounded_one(
    model_path: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, model: str, release: bool
) -> None:
    """By the reference, which unpacks: the same numbers, to the bit."""
    found = record(monkeypatch, Runner)
    settings_: dict[str, Any] = {"kernels": "torch", "weight_dtype": "int4", "kv_cache_tokens": 4096}
    params = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)
    Engine.from_pretrained(model_path(model), **settings_).generate(ragged_prompts(VOCAB), params)
    wanted = dict(found)
    found.clear()

    def packing(weights: ModelWeights, formats: WeightFormats) -> ModelWeights:
        return packed_model(weights, formats, release=release)

    monkeypatch.setattr("engine.backend.rounded_model", packing)
    Engine.from_pretrained(model_path(model), **settings_).generate(ragged_prompts(VOCAB), params)

    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], row) for key, row in wanted.items())


def test_packing_may_give_back_what_it_has_read(model_path: Callable[[str], Path]) -> None:
    weights, formats = prepared(model_path("llama-tied"), "int8")

    done = packed_model(weights, formats, release=True)

    assert plain(weights.layers[0].qkv).numel() == 0
    assert done.embedding.numel() > 0
    assert weights.embedding.numel() > 0


def test_the_compiled_kernels_refuse_packed_matrices(model_path: Callable[[str], Path]) -> None:
    directory = model_path("llama-tied")
    weights, formats = prepared(directory, "int8")
    shapes = [GroupShape(window=None, blocks=4, block_size=16, longest_chunk=16)]
    with pytest.raises(TypeError, match="a quantised matrix"):
        PackedModel(
            read_spec(directory), packed_model(weights, formats), format_of("auto", torch.float32), shapes, 64, None
        )


@pytest.mark.parametrize("name", ["w8a8", "fp8"])
def test_formats_for_a_card_are_refused_by_the_compiled_kernels_and_rounded_on_torch(
    model_path: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with pytest.raises(ValueError, match=f"weight_dtype {name}"):
        Engine.from_pretrained(model_path("llama-tied"), weight_dtype=name, kernels="compiled")
    weights, formats = prepared(model_path("llama-tied"), name)

    left = plain(rounded_model(weights, formats).layers[0].qkv)

    whole = plain(weights.layers[0].qkv)
    assert not torch.equal(left, whole)
    assert (left - whole).norm() < 0.05 * whole.norm()
