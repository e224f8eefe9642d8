"""Deterministic attention: a row's numbers are the same bit for bit, however it came to be computed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine.kernels.triton.attention import paged_attention
from engine.kernels.triton.tiles import queries_per_tile
from engine.kernels.triton.tuning import AttentionTuning, Shape, format_of, tuning_of
from engine.kv.format import INT8, KVFormat
from tests.engine.triton.pages import Pages, Part, make_pages, make_plan

SMALL = AttentionTuning(Shape(16, 16, 4, 2), Shape(32, 16, 4, 2), Shape(16, 16, 4, 2), 32, 32)
FLOAT = KVFormat("float32", torch.float32)
HALF = KVFormat("float16", torch.float16)
BRAIN = KVFormat("bfloat16", torch.bfloat16)
LENGTHS = (150, 61, 97)
HEAD_DIM = 16


class Steps:
    """Sequences whose queries are all known, computed in whatever steps."""

    def __init__(
        self, form: KVFormat, group: int, window: int | None, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> None:
        self._pages = make_pages(LENGTHS, form, 1, 16, HEAD_DIM, device)
        self._window = window
        generator = torch.Generator().manual_seed(1)
        shapes = [(length, group, HEAD_DIM) for length in LENGTHS]
        self._queries = [torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes]

    def run(
        self,
        step: Sequence[tuple[int, int, int]],
        *,
        deterministic: bool = True,
        tuning: AttentionTuning = SMALL,
        few_rows: int = 16,
        longest: int = max(LENGTHS),
    ) -> list[Tensor]:
        """What comes out for each (sequence, first position, end) of a step."""
        chosen = [sequence for sequence, _, _ in step]
        parts = [Part(end - first, end) for _, first, end in step]
        pages = Pages(self._pages.cache, self._pages.tables[chosen])
        query = torch.cat([self._queries[sequence][first:end] for sequence, first, end in step])
        heads = query.shape[1]
        few, many = (queries_per_tile(rows, heads, 1) for rows in (few_rows, tuning.rows(deterministic)[1]))
        plan = make_plan(
            pages, parts, window=self._window, few_queries=few, tile_queries=many, padding=1, longest=longest
        )
        padded = torch.cat((query, query[:1]))
        output = paged_attention(
            padded, pages.cache, plan, 0.4, None, deterministic=deterministic, tuning=tuning, multiprocessors=4
        )
        return list(output[:-1].split([part.count for part in parts]))

    def decoded(self, sequence: int, positions: range) -> Tensor:
        """Rows of a sequence, each in a step of its own."""
        return torch.cat([self.run([(sequence, at, at + 1)])[0] for at in positions])


def test_a_row_does_not_depend_on_its_batch(device: torch.device) -> None:
    steps = Steps(FLOAT, 2, None, device)
    together = steps.run([(0, 149, 150), (1, 20, 61), (2, 90, 97)])
    for step, expected in zip([(0, 149, 150), (1, 20, 61), (2, 90, 97)], together, strict=True):
        assert torch.equal(steps.run([step])[0], expected)


@pytest.mark.parametrize("window", [None, 21])
def test_a_decoded_row_is_as_in_a_prompt(window: int | None, device: torch.device) -> None:
    steps = Steps(FLOAT, 2, window, device)
    assert torch.equal(steps.run([(2, 0, 97)])[0][::5], steps.decoded(2, range(0, 97, 5)))


@pytest.mark.parametrize("few_rows", [2, 16])
def test_a_row_is_the_same_in_tiles_of_few_and_of_many(few_rows: int, device: torch.device) -> None:
    steps = Steps(FLOAT, 2, None, device)
    whole = steps.run([(0, 0, 150)])[0]
    assert torch.equal(steps.run([(0, 143, 150)], few_rows=few_rows)[0], whole[143:])


def test_a_bound_on_lengths_changes_nothing(device: torch.device) -> None:
    steps = Steps(FLOAT, 2, None, device)
    step = [(1, 60, 61), (2, 90, 97)]
    for one, other in zip(steps.run(step, longest=128), steps.run(step, longest=1000), strict=True):
        assert torch.equal(one, other)


@given(cuts=st.sets(st.integers(1, 96), max_size=3), window=st.sampled_from([None, 1, 40, 64]))
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_however_a_prompt_is_cut(cuts: set[int], window: int | None, device: torch.device) -> None:
    steps = Steps(INT8, 3, window, device)
    chunks = [steps.run([(2, first, end)])[0] for first, end in pairwise([0, *sorted(cuts), 97])]
    assert torch.equal(torch.cat(chunks), steps.run([(2, 0, 97)])[0])


def test_without_it_numbers_may_differ(device: torch.device) -> None:
    """What the other tests show is not so of itself."""
    steps = Steps(FLOAT, 2, None, device)
    whole = steps.run([(0, 0, 150)], deterministic=False)[0]
    last = steps.run([(0, 149, 150)], deterministic=False)[0]
    torch.testing.assert_close(whole[149:], last)
    assert not torch.equal(whole[149:], last)


@pytest.mark.parametrize("form", [HALF, BRAIN, FLOAT, INT8], ids=lambda form: form.name)
def test_the_shapes_used_by_default_are_exact(form: KVFormat, device: torch.device) -> None:
    if form is BRAIN and device.type != "cuda":
        pytest.skip("the interpreter cannot multiply bfloat16")
    dtype = torch.float16 if form is INT8 else form.number
    steps = Steps(form, 4, None, device, dtype)
    tuning = tuning_of("", HEAD_DIM, format_of(dtype, form.number))
    whole = steps.run([(2, 0, 97)], tuning=tuning)[0]
    assert torch.equal(steps.run([(2, 33, 97)], tuning=tuning)[0], whole[33:])
    assert torch.equal(steps.run([(1, 60, 61), (2, 96, 97)], tuning=tuning)[1], whole[96:])
