"""Every embedder keeps the contract of the port."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.embedder.embedder_replica import load_embedder
from safety.encoder.precision import Precision
from tests.embedder.contract import check_embedder
from tests.embedder.fake_embedder import FakeEmbedder
from tests.embedder.models import PACKAGED, embedder_config, packaged_directory, write_model


async def test_the_fake_embedder_keeps_the_contract() -> None:
    await check_embedder(FakeEmbedder())


@pytest.mark.parametrize("precision", Precision)
async def test_a_small_model_keeps_the_contract(tmp_path: Path, precision: Precision) -> None:
    await check_embedder(load_embedder(embedder_config(write_model(tmp_path), precision=precision)))


async def test_the_packaged_model_keeps_the_contract() -> None:
    packaged_directory()
    await check_embedder(load_embedder(embedder_config(PACKAGED)))
