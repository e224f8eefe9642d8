"""Weights of GGUF files that stay packed on a card: products, rows that are looked up, and whole models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine import Engine, SamplingParams
from engine.backend import load_model
from engine.config import EngineConfig
from engine.gguf.types import TENSOR_TYPES, TensorType
from engine.kernels.reference import ReferenceKernels
from engine.kernels.triton.embedding import look_up
from engine.kernels.triton.grouped import SHARED_WANTED, SMALL_FEW, SMALL_MANY, grouped_matmul, usual
from engine.kernels.triton.linear import Products
from engine.kernels.triton.matmul import new_arrivals
from engine.kernels.triton.tiling import Tiling
from engine.model.source import open_model
from engine.model.weights import plain
from engine.quant.blocks import BlockMatrix, BlockRows
from engine.quant.grouped import GroupedMatrix
from engine.quant.packed_groups import packed_groups
from engine.token_id_tokenizer import TokenIds
from tests.engine.gguf_files import SavedGGUF, Type
from tests.engine.gguf_rows import random_rows
from tests.engine.grouped import Bits, grouped_matrix

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton.*")  # of rows of padding

DTYPES = [torch.float32, torch.float16] + [torch.bfloat16] * torch.cuda.is_available()
BY_SUMS = Tiling(16, 64, 64, 4, 2, programs=4, group=2)
BY_WEIGHTS = Tiling(64, 64, 64, 4, 2, programs=4, group=2)
TILES = pytest.mark.parametrize("tile", [BY_SUMS, BY_WEIGHTS], ids=["sums", "weights"])
KINDS = [kind for kind in TENSOR_TYPES.values() if kind.quantised]
SYMMETRIC = ("Q4_0", "Q5_0", "Q8_0", "IQ4_NL", "IQ4_XS", "Q2_K", "Q3_K", "Q6_K")  # the last three are rounded so


def drawn(*shape: int, dtype: torch.dtype, device: torch.device, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype).to(device)


def stored(kind: TensorType, outputs: int = 20) -> GroupedMatrix:
    """[outputs, 512] or, of a type of blocks of 32, [outputs, 288]: neither is whole words of four bits."""
    return BlockMatrix((BlockRows(kind, random_rows(kind, outputs, 2 if kind.weights == 256 else 9)),)).grouped()


def uneven(outputs: int, groups: int, bits: Bits) -> GroupedMatrix:
    """Some weights far larger than others, so that factors taken from elsewhere are seen, and a group of zeros. Numbers
    have four bits, in eight as a Q4_1 that shares its matrix with a Q8_0."""
    weight = drawn(outputs, groups * 32, dtype=torch.float32, device=torch.device("cpu"), seed=1) + 0.5
    weight *= torch.linspace(0.5, 3, outputs).unsqueeze(1) * torch.linspace(0.2, 2, groups * 32)
    weight[outputs // 2, -32:] = 0
    return replace(grouped_matrix(weight, 4), bits=bits)


def assert_product(found: Tensor, x: Tensor, matrix: GroupedMatrix, bias: Tensor | None) -> None:
    """As in float64, but for a sum in float32 and one rounding; and that of weights or minimums to 16 bits."""
    right = matrix.dequantised(torch.float32).double().to(x.device)
    size = x.double().abs() @ (right.abs() + matrix.minimums.double().abs().repeat_interleave(32, 1).to(x.device)).t()
    wanted = x.double() @ right.t()
    if bias is not None:
        wanted += bias.double()
    eps = torch.finfo(x.dtype).eps
    off = 2e-6 + (0 if x.dtype == torch.float32 else eps / 2 * (3 if x.dtype == torch.bfloat16 else 1))
    assert ((found.double() - wanted).abs() <= size * off + eps * wanted.abs()).all()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_packed_groups_hold_the_weights_of_every_type(kind: TensorType) -> None:
    matrix = stored(kind)

    packed = packed_groups(matrix, torch.device("cpu"))

    assert packed.shape == matrix.shape
    assert (packed.minimums is None) == (kind.name in SYMMETRIC)
    exact = matrix.dequantised(torch.float32)
    assert torch.equal(packed.dequantised(torch.float32), exact)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), groups=st.integers(1, 12), bits=st.sampled_from([4, 8]))
def test_any_numbers_and_factors_are_kept(seed: int, groups: int, bits: Bits) -> None:
    """Of eight bits also those that no offset brings around zero."""
    random = torch.Generator().manual_seed(seed)
    numbers = torch.randint(0, 2**bits, (5, groups * 32), generator=random, dtype=torch.uint8)
    factors = torch.randn(2, 5, groups, generator=random).half()
    matrix = GroupedMatrix(bits, numbers, factors[0], factors[1] * 2.0 ** (seed % 10))

    found = packed_groups(matrix, torch.device("cpu")).dequantised(torch.float32)

    lost = (found - matrix.dequantised(torch.float32)).abs().view(5, groups, 32).amax(-1)
    assert (lost <= 2**-10 * (matrix.minimums.float().abs() + 2**bits * matrix.scales.float().abs())).all()


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [4, 8])
def test_a_matrix_packed_in_pieces_is_the_same(bits: Bits, symmetric: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """One output has minimums, or none has."""
    matrix = uneven(7, 9, bits)
    middle = matrix.scales * (-8 if bits == 4 else -128)
    rows = torch.arange(7).unsqueeze(1)
    matrix = replace(matrix, minimums=torch.where((rows == 4) & (not symmetric), matrix.minimums, middle))
    whole = packed_groups(matrix, torch.device("cpu"))

    monkeypatch.setattr("engine.quant.packed_groups.CHUNK", 2 * 288)
    pieces = packed_groups(matrix, torch.device("cpu"))

    assert (pieces.minimums is None) == (whole.minimums is None) == symmetric
    assert pieces.scales.is_contiguous()
    assert torch.equal(pieces.numbers, whole.numbers)
    assert torch.equal(pieces.dequantised(torch.float32), whole.dequantised(torch.float32))


def test_a_packed_matrix_takes_what_it_says() -> None:
    cpu = torch.device("cpu")
    assert packed_groups(uneven(8, 16, 4), cpu).nbytes == 8 * 512 * 5 // 8
    assert packed_groups(stored(TENSOR_TYPES[2], 8), cpu).nbytes == 8 * 512 * 9 // 16  # Q4_0, padded from 288


def test_a_minimum_that_leaves_float16_is_refused() -> None:
    numbers, factor = torch.tensor([[255] + [1] * 31]).byte(), torch.full((1, 1), 6e4).half()
    matrix = GroupedMatrix(8, numbers, factor, torch.ones(1, 1).half())

    with pytest.raises(ValueError, match="float16 does not hold"):
        packed_groups(matrix, torch.device("cpu"))


@TILES
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_products_are_those_of_the_dequantised_weights(device: torch.device, kind: TensorType, tile: Tiling) -> None:
    matrix = stored(kind)
    packed = packed_groups(matrix, device)
    x = drawn(3, matrix.shape[1], dtype=torch.float32, device=device)
    bias = drawn(20, dtype=torch.float32, device=device, seed=2)

    found = grouped_matmul(x, packed, bias, new_arrivals(device), tile=tile)

    assert_product(found, x, matrix, bias)


@TILES
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("rows", "groups", "outputs"), [(1, 8, 70), (17, 3, 64), (70, 9, 33)])
def test_rows_of_any_number(
    device: torch.device, bits: Bits, dtype: torch.dtype, rows: int, groups: int, outputs: int, tile: Tiling
) -> None:
    matrix = uneven(outputs, groups, bits)
    x = drawn(rows, groups * 32, dtype=dtype, device=device)

    found = grouped_matmul(x, packed_groups(matrix, device), None, new_arrivals(device), tile=tile)

    assert found.dtype == dtype
    assert_product(found, x, matrix, None)


@settings(max_examples=8, deadline=None)
@given(
    rows=st.integers(0, 20),
    groups=st.integers(1, 14),
    outputs=st.integers(1, 150),
    programs=st.integers(1, 24),
    fixed=st.booleans(),
    bits=st.sampled_from([4, 8]),
)
@TILES
def test_any_shape_may_be_cut_in_any_way(
    device: torch.device, rows: int, groups: int, outputs: int, programs: int, fixed: bool, bits: Bits, tile: Tiling
) -> None:
    matrix = uneven(outputs, groups, bits)
    x = drawn(rows, groups * 32, dtype=torch.float32, device=device)
    arrivals = new_arrivals(device)
    cut = Tiling(tile.rows, 64, 64, 4, 2, programs)

    found = grouped_matmul(x, packed_groups(matrix, device), None, arrivals, fixed=fixed, tile=cut)

    assert found.shape == (rows, outputs)
    assert_product(found, x, matrix, None)
    assert not arrivals.any()


@pytest.mark.parametrize("bits", [4, 8])
def test_the_usual_tiles_serve_few_rows_and_many(device: torch.device, bits: Bits) -> None:
    matrix = uneven(80, 17, bits)
    for rows in (2, 40, 70):
        x = drawn(rows, 17 * 32, dtype=DTYPES[-1], device=device)
        found = grouped_matmul(x, packed_groups(matrix, device), None, new_arrivals(device))
        assert_product(found, x, matrix, None)


@pytest.mark.parametrize("bits", [4, 8])
def test_a_card_with_less_shared_memory_gets_smaller_tiles(bits: Bits) -> None:
    few, many = torch.zeros(16, 64).half(), torch.zeros(17, 64).half()
    small, large = 99 * 1024, 227 * 1024

    assert [usual(x, bits, False, small) for x in (few, many)] == [SMALL_FEW, SMALL_MANY]
    assert usual(few, bits, True, small) == usual(many, bits, True, small) == SMALL_MANY
    assert large >= SHARED_WANTED
    for x in (few, many):
        assert usual(x, bits, False, large) == usual(x, bits, False, None) != usual(x, bits, False, small)


@pytest.mark.parametrize("tile", [SMALL_FEW, SMALL_MANY], ids=["few", "many"])
@pytest.mark.parametrize("bits", [4, 8])
def test_smaller_tiles_multiply_the_same(device: torch.device, bits: Bits, tile: Tiling) -> None:
    matrix = uneven(70, 9, bits)
    x = drawn(19, 288, dtype=DTYPES[-1], device=device)

    found = grouped_matmul(x, packed_groups(matrix, device), None, new_arrivals(device), tile=tile)

    assert_product(found, x, matrix, None)


@pytest.mark.parametrize("tile", [BY_SUMS, None], ids=["sums", "usual tile"])
@pytest.mark.parametrize("bits", [4, 8])
def test_a_row_has_the_same_bits_alone_and_among_others(device: torch.device, bits: Bits, tile: Tiling | None) -> None:
    x = drawn(40, 320, dtype=DTYPES[-1], device=device)
    packed, arrivals = packed_groups(uneven(70, 10, bits), device), new_arrivals(device)
    together = grouped_matmul(x, packed, None, arrivals, fixed=True, tile=tile)

    for first, last in [(0, 1), (3, 20), (39, 40)]:
        alone = grouped_matmul(x[first:last], packed, None, arrivals, fixed=True, tile=tile)
        assert torch.equal(alone, together[first:last])


@TILES
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # of numpy in the interpreter
def test_what_is_no_number_stays_in_its_row(device: torch.device, tile: Tiling, bad: float) -> None:
    x = drawn(20, 64, dtype=torch.float32, device=device)
    x[3, 5] = bad

    found = grouped_matmul(x, packed_groups(uneven(40, 2, 4), device), None, new_arrivals(device), tile=tile)

    assert found.isfinite().all(1).tolist() == [row != 3 for row in range(20)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_rows_are_looked_up_as_they_are_dequantised(device: torch.device, kind: TensorType, dtype: torch.dtype) -> None:
    packed = packed_groups(stored(kind), device)
    tokens = torch.tensor([3, 0, 19, 3], device=device)

    found = look_up(tokens, packed, dtype)

    whole = packed.dequantised(torch.float32)[tokens]
    largest = whole.abs().amax(-1, keepdim=True)
    assert found.dtype == dtype
    assert ((found.float() - whole).abs() <= torch.finfo(dtype).eps * largest).all()
    assert torch.equal(look_up(tokens.int(), packed, dtype), found)
    assert look_up(tokens[:0], packed, dtype).shape == (0, whole.shape[1])


def test_the_reference_multiplies_and_looks_up_the_same_numbers(device: torch.device) -> None:
    packed = packed_groups(uneven(40, 5, 4), device)
    x, reference = drawn(3, 160, dtype=torch.float32, device=device), ReferenceKernels()
    tokens = torch.tensor([7, 39], device=device)

    off = grouped_matmul(x, packed, None, new_arrivals(device), tile=BY_SUMS) - reference.linear(x, packed, None)

    assert off.norm() < 1e-6 * reference.linear(x, packed, None).norm()
    wanted = reference.embedding(tokens, packed, x.dtype)
    torch.testing.assert_close(look_up(tokens, packed, x.dtype), wanted, rtol=0, atol=1e-6)


PROMPT = [*range(3, 9), 4]
SCORED = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=1, ignore_eos=True)
GREEDY = SamplingParams(temperature=0, max_tokens=3, ignore_eos=True)


class Models:
    """Tiny models in GGUF files, and what engines make of them; each file and each engine's scores are made once."""

    def __init__(self, device: torch.device, folder: Callable[[], Path]) -> None:
        self._device = device
        self.path = cache(lambda kind, of, halves=(): SavedGGUF(kind, of, folder(), halves=halves).path)
        self.scores = cache(self._scores)

    def engine(self, path: Path, **config: Any) -> Engine:
        usual: dict[str, Any] = {
            "model": str(path),
            "device": self._device.type,
            "kernels": "triton",
            "kv_cache_tokens": 256,
        }
        given = EngineConfig(**usual | config)
        return Engine(given, load_model(given, open_model(path)), TokenIds(frozenset()))

    def _scores(self, path: Path, **config: Any) -> Tensor:
        """The log probability of each token of the prompt but the first, float64 [tokens]."""
        answer = self.engine(path, **config).generate([PROMPT], SCORED)[0]
        assert answer.prompt_logprobs is not None
        return torch.tensor([each.chosen.logprob for each in answer.prompt_logprobs[1:]], dtype=torch.float64)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, device: torch.device) -> Models:
    return Models(device, lambda: tmp_path_factory.mktemp("packed"))


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level("INFO")
    return caplog


@pytest.mark.parametrize(
    ("kind", "of", "halves"),
    [
        ("llama-stretched", Type.Q5_1, ()),  # not tied
        ("llama", Type.Q8_0, ("blk.0.attn_v.weight", "blk.1.ffn_down.weight")),
    ],
    ids=["whole", "in part"],
)
def test_a_model_that_stays_packed_scores_as_the_unpacked_one(
    models: Models,
    log: pytest.LogCaptureFixture,
    kind: str,
    of: gguf.GGMLQuantizationType,
    halves: tuple[str, ...],
) -> None:
    path = models.path(kind, of, halves)

    found = models.scores(path)

    assert "stay packed in groups of 32" in log.text
    assert "are unpacked to" not in log.text
    torch.testing.assert_close(found, models.scores(path, kernels="torch"), rtol=1e-3, atol=1e-3)


def test_a_tied_model_looks_tokens_up_in_the_output_layer_and_answers_as_the_unpacked_one(models: Models) -> None:
    path = models.path("llama", Type.Q4_K)

    answer = models.engine(path).generate([PROMPT], GREEDY)[0]

    assert answer.token_ids == models.engine(path, kernels="torch").generate([PROMPT], GREEDY)[0].token_ids


def test_groups_of_16_are_rounded_and_said(models: Models, log: pytest.LogCaptureFixture) -> None:
    path = models.path("llama", Type.Q6_K)

    found = models.scores(path)

    assert "in groups of 16 are rounded to 8 bits" in log.text
    assert (found - models.scores(path, kernels="torch")).abs().max() < 0.05


def test_four_bits_asked_for_and_stored_are_not_rounded_again(models: Models) -> None:
    path = models.path("llama", Type.Q4_K)

    assert torch.equal(models.scores(path, weight_dtype="int4"), models.scores(path))


def test_eight_bits_are_rounded_to_the_four_that_are_asked_for(models: Models, log: pytest.LogCaptureFixture) -> None:
    path = models.path("llama", Type.Q8_0)

    rounded = models.scores(path, weight_dtype="int4")

    assert "are unpacked to" in log.text
    assert (rounded - models.scores(path, kernels="torch")).abs().max() > 1e-3


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_deterministic_engine_gives_a_row_the_same_bits_alone_and_among_others(
    device: torch.device, dtype: torch.dtype
) -> None:
    products, packed = Products(device, deterministic=True), packed_groups(uneven(70, 10, 4), device)
    x = drawn(20, 320, dtype=dtype, device=device)

    together = products.linear(x, packed, None)

    assert torch.equal(products.linear(x[4:5], packed, None), together[4:5])


def test_a_packed_matrix_does_not_pass_for_a_plain_one() -> None:
    with pytest.raises(TypeError, match="a quantised matrix"):
        plain(packed_groups(uneven(16, 1, 4), torch.device("cpu")))
