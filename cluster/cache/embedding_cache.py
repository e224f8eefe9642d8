"""``EmbeddingCache``: caches the vectors of the latest questions, so that a question that missed is not embedded again
when its answer is stored. Pure."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray


class EmbeddingCache:
    """A bounded cache of vectors, in float16, by model and text. It keeps the latest ``max_texts``."""

    def __init__(self, max_texts: int) -> None:
        self._max_texts = max_texts
        self._vectors: OrderedDict[tuple[str, str], NDArray[np.float16]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._vectors)

    def get(self, model: str, text: str) -> NDArray[np.float32] | None:
        """Returns the vector, float32 [dimensions]; None if it is not in the cache. ``model`` is the embedding model's
        name and version."""
        found = self._vectors.get((model, text))
        return None if found is None else found.astype(np.float32)

    def put(self, model: str, text: str, vector: NDArray[np.float32]) -> None:
        """Stores a vector, float32 [dimensions], in float16."""
        self._vectors[model, text] = vector.astype(np.float16)
        self._vectors.move_to_end((model, text))
        if len(self._vectors) > self._max_texts:
            self._vectors.popitem(last=False)
