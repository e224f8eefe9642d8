"""Every embedder keeps the contract of the port."""

from __future__ import annotations

from tests.embedder.contract import check_embedder
from tests.embedder.fake_embedder import FakeEmbedder


async def test_the_fake_embedder_keeps_the_contract() -> None:
    await check_embedder(FakeEmbedder())
