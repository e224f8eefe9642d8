"""Weights whose groups have a scale and a minimum: what the compiled kernels compute with them."""

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
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from engine import SamplingParams
from engine.kernels.cpu.library import Linear, loaded
from engine.kernels.cpu.packing import GROUPED_TYPES, WEIGHT_TYPES, coded_panels, grouped_panels
from engine.kernels.cpu.runner import CompiledRunner
from engine.model.loader import load_weights
from engine.model.weights import ModelWeights, plain
from engine.quant.format import GROUP, INT4, INT8, WeightFormat
from engine.quant.grouped import GroupedMatrix
from engine.quant.quantise import quantise
from engine.runner import Runner
from tests.engine.compiled import make_engine
from tests.engine.families import CONFIGS, disturb, record
from tests.engine.grouped import NAMES, Bits, grouped_matrix, grouped_model, random_matrix
from tests.engine.models import VOCAB, ragged_prompts, write
from tests.engine.products import product
from tests.engine.rounding import MIN_STEPS, Rounding

EPSILON = torch.finfo(torch.float32).eps
ROWS = (1, 2, 3, 4, 5, 6, 7, 8, 13, 33)
FLAGS = ("", "-march=x86-64-v2", "-march=x86-64-v3", "-march=x86-64-v4")
"""The second knows no float16 and no registers of 256 bits; the others know no products of four bytes."""
ANSWER = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
BITS: dict[str, dict[str, Bits]] = {
    "4": dict.fromkeys(NAMES, 4),
    "8": dict.fromkeys(NAMES, 8),
    "mixed": {"qkv": 4, "output": 8, "gate_up": 4, "down": 8, "head": 4},
}
MIN_MARGIN = 0.1  # of the largest logit, by which the greedy token is ahead of the next
PARTS = {"o_proj": "output", "gate_proj": "gate_up", "up_proj": "gate_up", "down_proj": "down", "lm_head": "head"}


@pytest.fixture
def library(lesser_library: Callable[[str], ctypes.CDLL], flag: str) -> ctypes.CDLL:
    """The compiled kernels for this processor, or for a lesser one."""
    return lesser_library(flag) if flag else loaded()


def packed(matrix: GroupedMatrix) -> tuple[Linear, object]:
    """For the kernels, and the memory that they read."""
    numbers, scales = grouped_panels(matrix)
    outputs, inputs = matrix.shape
    linear = Linear(numbers.data_ptr(), scales.data_ptr(), None, inputs, outputs, GROUPED_TYPES[matrix.bits])
    return linear, (numbers, scales)


def packed_symmetric(weight: Tensor, form: WeightFormat) -> tuple[Linear, Tensor, object]:
    """For the kernels, the weights in float64, and the memory that they read."""
    matrix = quantise(weight, form)
    numbers, scales = coded_panels(matrix, form)
    outputs, inputs = weight.shape
    linear = Linear(numbers.data_ptr(), scales.data_ptr(), None, inputs, outputs, WEIGHT_TYPES[form])
    return linear, matrix.dequantised(torch.float64), (numbers, scales)


def exact(matrix: GroupedMatrix) -> tuple[Tensor, Tensor]:
    """Weights in float64, and the most that sums in float32 may be off by for each 1 of the inputs."""
    numbers = matrix.numbers.double().unflatten(1, (-1, GROUP))
    scaled, minimums = numbers * matrix.scales.double().unsqueeze(-1), matrix.minimums.double().unsqueeze(-1)
    off = (scaled.abs() + minimums.abs()) * (matrix.shape[1] // GROUP + 4) * EPSILON
    return (scaled + minimums).flatten(1), off.flatten(1)


def rounded_inputs(rows: int, inputs: int) -> tuple[Tensor, Tensor]:
    """Inputs of which none lies near the middle of two steps, and what rounding them to 127 steps either way, by groups
    of 32, leaves in float64."""
    x = torch.randn(rows, inputs, generator=torch.Generator().manual_seed(rows))
    groups = x.view(-1, GROUP)
    steps = groups.abs().amax(-1, keepdim=True) / 127
    numbers = groups.double() / steps.double()
    groups[(numbers - numbers.floor() - 0.5).abs() < MIN_STEPS] = 0
    return x, ((groups.double() / steps.double()).round() * steps.double()).view_as(x)


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize(("outputs", "inputs"), [(16, 32), (40, 96), (333, 576)])
@pytest.mark.parametrize("bits", [4, 8])
def test_products_are_those_of_the_dequantised_weights(
    library: ctypes.CDLL, bits: Bits, outputs: int, inputs: int
) -> None:
    matrix = random_matrix(outputs, inputs, bits)
    weight, off = exact(matrix)
    linear, _memory = packed(matrix)
    for rows in ROWS:
        x, left = rounded_inputs(rows, inputs)

        found = product(library, linear, x)

        assert ((found.double() - left @ weight.t()).abs() <= left.abs() @ off.t()).all()


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("form", [INT4, INT8], ids=lambda form: form.name)
def test_products_without_minimums_are_those_of_the_dequantised_weights(
    library: ctypes.CDLL, form: WeightFormat
) -> None:
    weight = torch.randn(72, 160, generator=torch.Generator().manual_seed(0))
    linear, dequantised, _memory = packed_symmetric(weight, form)
    for rows in ROWS:
        x, left = rounded_inputs(rows, 160)

        found = product(library, linear, x)

        torch.testing.assert_close(found.double(), left @ dequantised.t(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("bits", [4, 8])
def test_the_largest_numbers_do_not_overflow(library: ctypes.CDLL, bits: Bits, sign: int) -> None:
    numbers = torch.full((32, 64), 2**bits - 1, dtype=torch.uint8)
    matrix = GroupedMatrix(bits, numbers, torch.ones(32, 2).half(), torch.zeros(32, 2).half())
    linear, _memory = packed(matrix)

    found = product(library, linear, torch.full((5, 64), sign * 127.0))

    assert (found == sign * 127 * 64 * (2**bits - 1)).all()


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("kind", ["grouped 4", "grouped 8", "int4", "int8"])
def test_a_row_has_the_same_bits_beside_any_others_on_any_number_of_threads(library: ctypes.CDLL, kind: str) -> None:
    weight = torch.randn(120, 192, generator=torch.Generator().manual_seed(0))
    if kind.startswith("grouped"):
        linear, _memory = packed(grouped_matrix(weight, 4 if kind.endswith("4") else 8))
    else:
        linear, _, _memory = packed_symmetric(weight, INT4 if kind == "int4" else INT8)
    x = torch.randn(33, 192, generator=torch.Generator().manual_seed(1))
    alone = torch.cat([product(library, linear, x[row : row + 1]) for row in range(33)])

    for rows in range(1, 34):
        assert torch.equal(product(library, linear, x[:rows], 1 + rows % 4), alone[:rows])


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_a_row_that_is_not_finite_gives_no_numbers_and_harms_no_other(library: ctypes.CDLL, value: float) -> None:
    matrix = random_matrix(32, 64, 4)
    linear, _memory = packed(matrix)
    x, _ = rounded_inputs(5, 64)
    clean = product(library, linear, x)
    x[2, 40] = value

    found = product(library, linear, x)

    assert found[2].isnan().all()
    assert torch.equal(found[[0, 1, 3, 4]], clean[[0, 1, 3, 4]])


@pytest.mark.parametrize("bits", [4, 8])
def test_panels_hold_every_number_once(bits: Bits) -> None:
    matrix = random_matrix(40, 64, bits)

    numbers, scales = grouped_panels(matrix)

    assert numbers.numel() * 8 == 48 * 64 * bits
    assert scales.shape == (3, 2, 2, 16)
    parts = torch.cat([numbers.flatten()] if bits == 8 else [(numbers & 15).flatten(), (numbers >> 4).flatten()])
    assert sorted(parts[parts != 0].tolist()) == sorted(matrix.numbers[matrix.numbers != 0].tolist())
    assert torch.equal(scales[0, 1, 0], matrix.scales[:16, 1])
    assert torch.equal(scales[2, 0, 1, :8], matrix.minimums[32:, 0])


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bool], Path]:
    """A llama whose matrices are whole groups, with or without an output layer of its own."""

    @cache
    def make(tied: bool) -> Path:
        torch.manual_seed(0)
        shape = {"hidden_size": 64, "head_dim": 16, "num_attention_heads": 4, "intermediate_size": 96}
        config = type(CONFIGS["llama"])(**CONFIGS["llama"].to_dict() | shape | {"tie_word_embeddings": tied})
        model = AutoModelForCausalLM.from_config(config).eval()
        disturb(model)
        path = tmp_path_factory.mktemp("grouped") / "llama"
        write(model, path)
        return path

    return make


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[ModelWeights], ModelWeights]], None]:
    """Has all models from now on changed once they are read."""

    def changed(change: Callable[[ModelWeights], ModelWeights]) -> None:
        monkeypatch.setattr("engine.model.decoder.load_weights", lambda *of: change(load_weights(*of)))

    return changed


Group = Callable[[Callable[[ModelWeights], ModelWeights]], None]


def oracle(path: Path, bits: dict[str, Bits], rounding: Rounding | None) -> Any:
    """transformers' model with its matrices grouped and dequantised, and the inputs of products rounded."""
    model: Any = AutoModelForCausalLM.from_pretrained(path, local_files_only=True, dtype=torch.float32)
    with torch.no_grad():
        for name, layer in model.named_modules():
            if isinstance(layer, nn.Linear):
                part = PARTS.get(name.rpartition(".")[2], "qkv")
                layer.weight.copy_(grouped_matrix(layer.weight, bits[part]).dequantised(torch.float32))
                if rounding is not None:
                    layer.register_forward_pre_hook(rounding)
    return model


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("bits", BITS)
def test_logits_are_those_of_the_dequantised_model(
    directory: Callable[[bool], Path], group: Group, monkeypatch: pytest.MonkeyPatch, bits: str, tied: bool
) -> None:
    """Where no input lies so close to the edge between two whole numbers that it may fall to either side."""
    recorded = record(monkeypatch, CompiledRunner)
    group(lambda weights: grouped_model(weights, BITS[bits]))
    prompts = [[token] for token in range(1, VOCAB)]
    engine = make_engine(directory(tied), max_waiting=VOCAB)
    engine.generate(prompts, replace(ANSWER, max_tokens=1))
    rounding = Rounding()
    with torch.inference_mode():
        wanted = oracle(directory(tied), BITS[bits], rounding)(torch.tensor(prompts), use_cache=False).logits[:, 0]

    clear = (rounding.margins >= MIN_STEPS).nonzero().flatten().tolist()
    assert len(clear) > 50
    for number in clear:
        torch.testing.assert_close(recorded[str(number), 1], wanted[number], rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_greedy_tokens_are_those_of_torch_where_rounding_the_inputs_cannot_matter(
    directory: Callable[[bool], Path], group: Group, monkeypatch: pytest.MonkeyPatch, tied: bool, dtype: str
) -> None:
    compiled, of_torch = record(monkeypatch, CompiledRunner), record(monkeypatch, Runner)
    group(lambda weights: grouped_model(weights, BITS["mixed"]))
    ragged = ragged_prompts(VOCAB)
    prompts = [*ragged, *(prompt[::-1] for prompt in ragged)]
    found = make_engine(directory(tied), dtype=dtype).generate(prompts, ANSWER)
    wanted = make_engine(directory(tied), dtype=dtype, kernels="torch").generate(prompts, ANSWER)

    off, clear = [], 0
    for number, (prompt, one, other) in enumerate(zip(prompts, found, wanted, strict=True)):
        for place, (token, expected) in enumerate(zip(one.token_ids, other.token_ids, strict=True)):
            row, whole = (of[str(number), len(prompt) + place].float() for of in (compiled, of_torch))
            off.append(float((row - whole).norm() / whole.norm()))
            first, second = whole.topk(2).values.tolist()
            if first - second > MIN_MARGIN * whole.abs().max():
                assert token == expected
                clear += 1
            if token != expected:
                break
    assert median(off) < 0.08
    assert clear > 15


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_torch_computes_with_the_dequantised_weights(
    directory: Callable[[bool], Path], group: Group, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tied: bool
) -> None:
    recorded = record(monkeypatch, Runner)
    write(oracle(directory(tied), BITS["mixed"], None), tmp_path)
    make_engine(tmp_path, kernels="torch").generate(ragged_prompts(VOCAB), ANSWER)
    wanted = dict(recorded)
    recorded.clear()

    group(lambda weights: grouped_model(weights, BITS["mixed"]))
    make_engine(directory(tied), kernels="torch").generate(ragged_prompts(VOCAB), ANSWER)

    assert recorded.keys() == wanted.keys()
    assert all(torch.equal(recorded[key], row) for key, row in wanted.items())


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize(
    "way",
    [{"prefill_chunk": 1}, {"prefill_chunk": 7}, {"threads": 3}, {"kv_cache_tokens": 416}],
    ids=["one at a time", "seven at a time", "three threads", "preempted"],
)
def test_every_way_to_cut_the_work_gives_the_same_bits(
    directory: Callable[[bool], Path], group: Group, monkeypatch: pytest.MonkeyPatch, way: dict[str, Any], tied: bool
) -> None:
    recorded = record(monkeypatch, CompiledRunner)
    group(lambda weights: grouped_model(weights, BITS["mixed"]))
    prompts = ragged_prompts(VOCAB)
    make_engine(directory(tied)).generate(prompts, ANSWER)
    plainly = dict(recorded)
    recorded.clear()

    make_engine(directory(tied), **way).generate(prompts, ANSWER)

    assert recorded.keys() == plainly.keys()
    assert all(torch.equal(recorded[key], plainly[key]) for key in plainly)


@pytest.mark.parametrize(
    ("kernels", "said", "unsaid"),
    [("compiled", "plain weights are rounded to 8 bits", "unpacked"), ("torch", "unpacked to float32", "rounded")],
)
def test_a_model_that_is_quantised_in_part_is_completed_or_unpacked(
    directory: Callable[[bool], Path],
    group: Group,
    kernels: str,
    said: str,
    unsaid: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def all_but_one(weights: ModelWeights) -> ModelWeights:
        done = grouped_model(weights, BITS["4"])
        return replace(done, layers=(done.layers[0], replace(done.layers[1], output=weights.layers[1].output)))

    group(all_but_one)
    caplog.set_level("INFO")

    engine = make_engine(directory(False), kernels=kernels)

    assert said in caplog.text
    assert unsaid not in caplog.text
    assert len(engine.generate([[1, 2]], ANSWER)[0].token_ids) > 0


def test_other_formats_are_made_of_the_unpacked_weights(directory: Callable[[bool], Path], group: Group) -> None:
    group(lambda weights: grouped_model(weights, BITS["8"]))

    engine = make_engine(directory(True), weight_dtype="int8")

    assert len(engine.generate([[1, 2]], ANSWER)[0].token_ids) > 0


def test_a_grouped_matrix_does_not_pass_for_a_plain_one() -> None:
    with pytest.raises(TypeError, match="a quantised matrix"):
        plain(random_matrix(16, 32, 4))
