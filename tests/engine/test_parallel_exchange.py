"""What ranks tell each other: the same sums everywhere, whole rows on the first, and an end to waiting."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from torch import Tensor

from engine.parallel.collectives import ProcessGroup

T = TypeVar("T")
CPU = torch.device("cpu")


class Ranks:
    """Some ranks, each on a thread of this process."""

    def __init__(self, meeting: Path, count: int, limit_s: float = 30.0) -> None:
        self._pool = ThreadPoolExecutor(count)
        joining = [self._pool.submit(ProcessGroup.join, meeting, rank, count, CPU, limit_s) for rank in range(count)]
        self.groups = [each.result() for each in joining]

    def all(self, work: Callable[[ProcessGroup], T]) -> list[T]:
        """What ``work`` gives on each of them at the same time."""
        return list(self._pool.map(work, self.groups))


@pytest.fixture(scope="module", params=[2, 3, 4])
def ranks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ranks:
    return Ranks(tmp_path_factory.mktemp("meeting") / "file", request.param)


def numbers(rank: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(rank)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_every_rank_gets_the_same_sum(ranks: Ranks, dtype: torch.dtype) -> None:
    expected = sum(numbers(group.rank, 5, 33, dtype=dtype).double() for group in ranks.groups)

    found = ranks.all(lambda group: group.sum(numbers(group.rank, 5, 33, dtype=dtype)))

    assert all(torch.equal(each, found[0]) for each in found)
    error = (found[0].double() - expected).abs().max()
    assert error < {torch.float32: 1e-6, torch.bfloat16: 0.1, torch.float16: 0.01}[dtype]


def test_a_sum_in_float32_does_not_depend_on_what_else_is_summed(ranks: Ranks) -> None:
    whole = ranks.all(lambda group: group.sum(numbers(group.rank, 7, 1001)))[0]

    def single(group: ProcessGroup) -> list[Tensor]:
        return [group.sum(row) for row in numbers(group.rank, 7, 1001)]

    alone = ranks.all(single)[0]

    assert torch.equal(torch.stack(alone), whole)


def test_the_first_gets_all_columns_and_the_others_keep_theirs(ranks: Ranks) -> None:
    found = ranks.all(lambda group: group.gather(numbers(group.rank, 3, 4)))

    assert torch.equal(found[0], torch.cat([numbers(group.rank, 3, 4) for group in ranks.groups], 1))
    assert all(torch.equal(each, numbers(rank, 3, 4)) for rank, each in enumerate(found) if rank)


def test_what_is_no_whole_piece_of_memory_is_summed_all_the_same(ranks: Ranks) -> None:
    found = ranks.all(lambda group: group.sum(numbers(group.rank, 6, 4).t()))

    torch.testing.assert_close(found[0], torch.stack([numbers(g.rank, 6, 4).t() for g in ranks.groups]).sum(0))


def test_nobody_waits_for_ever_for_a_rank_that_does_not_come(tmp_path: Path) -> None:
    two = Ranks(tmp_path / "file", 2, limit_s=0.5)
    began = time.monotonic()

    with pytest.raises(RuntimeError):
        two.groups[0].sum(torch.ones(3))

    assert time.monotonic() - began < 5
