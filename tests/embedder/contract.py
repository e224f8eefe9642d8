"""The contract of the port ``Embedder``, for all implementations."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from router.ports.embedder import Embedder, TextTooLongError

TEXTS = ["The weather is lovely today.", "", "The weather is lovely tomorrow.", "Interest rates rose.", "Ünïcode 😀 語"]


async def check_embedder(embedder: Embedder) -> None:
    """Checks everything that the port promises."""
    await check_vectors(embedder)
    await check_independence(embedder)
    await check_long_texts(embedder)


async def check_vectors(embedder: Embedder) -> None:
    vectors, tokens, model = await embedder.embed(TEXTS)

    assert vectors.shape == (len(TEXTS), embedder.dimensions)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert all(0 < count <= embedder.max_tokens for count in tokens)
    assert len(tokens) == len(TEXTS)
    assert tokens[1] < tokens[0], "an empty text has special tokens at most"
    assert vectors[0] @ vectors[2] > vectors[0] @ vectors[3], "similar texts are closer"
    assert "@" in model
    assert model == embedder.model


async def check_independence(embedder: Embedder) -> None:
    """No texts are no vectors. A text's vector is the same alone, again, in another order, and beside other calls."""
    empty, no_tokens, _ = await embedder.embed([])
    assert empty.shape == (0, embedder.dimensions)
    assert no_tokens == ()

    together = await embedder.embed(TEXTS)
    alone = await asyncio.gather(*(embedder.embed([text]) for text in TEXTS))
    backwards = await embedder.embed(TEXTS[::-1])
    np.testing.assert_allclose(np.concatenate([each.vectors for each in alone]), together.vectors, atol=1e-5)
    np.testing.assert_allclose(backwards.vectors[::-1], together.vectors, atol=1e-5)
    assert tuple(each.tokens[0] for each in alone) == together.tokens == backwards.tokens[::-1]


async def check_long_texts(embedder: Embedder) -> None:
    """A text of the longest length is embedded whole, a longer one is refused by its place."""
    special = (await embedder.embed([""])).tokens[0]
    longest = "rain " * (embedder.max_tokens - special)
    (fits,) = (await embedder.embed([longest])).tokens
    assert fits == embedder.max_tokens

    with pytest.raises(TextTooLongError) as refused:
        await embedder.embed(["short", longest + "rain", longest + "rain rain"])
    assert (refused.value.index, refused.value.max_tokens) == (1, embedder.max_tokens)
    assert refused.value.tokens == embedder.max_tokens + 1
