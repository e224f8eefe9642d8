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
    """The embedder did not answer in time, died, or gave a malformed answer; or the circuit breaker is open after such
    faults."""


class TextTooLongError(ValueError):
    """A text has more tokens than the model takes. ``index`` is its index among the texts of the call, from 0."""

    def __init__(self, index: int, tokens: int, max_tokens: int) -> None:
        super().__init__(f"text {index} has {tokens} tokens, of at most {max_tokens}")
        self.index = index
        self.tokens = tokens
        self.max_tokens = max_tokens


class Embeddings(NamedTuple):
    """The embeddings of n texts, in their order. Replicas send them, also those of an earlier release.

    ``vectors``: float32 [n, dimensions], each of length 1, so that a product of two is their cosine. ``tokens``: the
    number of tokens of each text, special tokens included.
    """

    vectors: NDArray[np.float32]
    tokens: tuple[int, ...]


class Embedded(NamedTuple):
    """Embeddings, as in ``Embeddings``, and the ``model`` that has made them, as in ``Embedder``."""

    vectors: NDArray[np.float32]
    tokens: tuple[int, ...]
    model: str


class Embedder(Protocol):
    """Turns texts into vectors. Vectors of different models must not be compared."""

    @property
    def model(self) -> str:
        """The name and the version of the model, as ``name@version``. The version differs between models whose vectors
        differ.

        While replicas with another model take the place of those with this one, both answer: ``Embedded.model`` says
        which. This property then stays the same, and changes once, so that what is kept by it is made anew once."""
        ...

    @property
    def dimensions(self) -> int:
        """The length of a vector."""
        ...

    @property
    def max_tokens(self) -> int:
        """The maximum number of tokens of a text, special tokens included."""
        ...

    async def embed(self, texts: Sequence[str], tenant: str = "") -> Embedded:
        """Returns the embeddings of ``texts``. No text is cut, and a text's vector does not depend on the other texts.
        ``tenant`` is their owner: tenants take turns.

        Raises TextTooLongError for the first text with more than ``max_tokens`` tokens, and EmbedderUnavailableError if
        the embedder does not answer.
        """
        ...
