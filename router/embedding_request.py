"""A request for embeddings and its result, independent of the wire format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router.ports.limit_store import LimitDecision

EMBEDDINGS = "embeddings"
"""Takes the place of the tier in the ledger and in the price list. There are input tokens only."""


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """A request for the vectors of texts.

    ``fields`` are the names of the request fields that the texts come from, for errors. ``dimensions`` is the wanted
    length of a vector; None: the model's. ``base64``: whether the vectors are sent as base64. ``user`` is the client's
    own name for its user, for the ledger.
    """

    model: str
    texts: Sequence[str]
    fields: Sequence[str]
    dimensions: int | None = None
    base64: bool = False
    user: str | None = None


@dataclass(frozen=True, slots=True)
class EmbeddingAccepted:
    """The event that the request is accepted and not computed yet. ``limits`` is the state of its limits; None: it has
    none. ``safety`` is the guard's decision in one word."""

    limits: LimitDecision | None
    safety: str


@dataclass(frozen=True, slots=True)
class EmbeddingResult:
    """The vectors of a request's texts, float32 [texts, dimensions], in order. ``model`` is ``name@version``.
    ``tokens`` are those of all texts together."""

    model: str
    vectors: NDArray[np.float32]
    tokens: int
    base64: bool
