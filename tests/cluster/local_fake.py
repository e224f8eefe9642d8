"""``LocalFake``: a fake embedder in a replica."""

from __future__ import annotations

from tests.embedder.fake_embedder import FakeEmbedder


class LocalFake(FakeEmbedder):
    """The fake embedder in a replica, whose batch has been computed for ``busy`` seconds."""

    busy = 1.0

    def busy_s(self) -> float:
        return self.busy
