"""``Embedder``: the port to the model that turns texts into vectors.

``cluster.embedder`` implements it with a deployment of its own. One suite of contract tests runs it and the
deterministic embedder of the tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class EmbedderUnavailableError(Exception):
    """The embedder did not answer in time, died, answered nonsense, or is not asked for a while after such faults."""


class TextTooLongError(ValueError):
    """A text has more tokens than the model takes. ``index``: its place among the texts of the call."""

    def __init__(self, index: int, tokens: int, max_tokens: int) -> None:
        super().__init__(f"text {index} has {tokens} tokens, of at most {max_tokens}")
        self.index = index
        self.tokens = tokens
        self.max_tokens = max_tokens


class Embeddings(NamedTuple):
    """The embeddings of n texts, in their order.

    ``vectors``: float32 [n, dimensions], each of length 1, so that a product of two is their cosine. ``tokens``: the
    tokens of each text, special tokens included.
    """

    vectors: NDArray[np.float32]
    tokens: tuple[int, ...]


class Embedder(Protocol):
    """Turns texts into vectors. Vectors of different models must not be compared."""

    @property
    def model(self) -> str:
        """The name and the version of the model, as ``name@version``. It changes with anything that changes vectors."""
        ...

    @property
    def dimensions(self) -> int:
        """The length of a vector."""
        ...

    @property
    def max_tokens(self) -> int:
        """The most tokens of a text, special tokens included."""
        ...

    async def embed(self, texts: Sequence[str]) -> Embeddings:
        """Returns the embeddings of ``texts``. No text is cut, and a text's vector does not depend on the other texts.

        Raises TextTooLongError for the first text with more than ``max_tokens`` tokens, and EmbedderUnavailableError.
        """
        ...
