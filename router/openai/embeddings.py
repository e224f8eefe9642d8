"""The endpoint /v1/embeddings, as OpenAI defines it: its request model and its response."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NoReturn

import numpy as np
from pydantic import BeforeValidator, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from router.embedding_request import EmbeddingRequest, EmbeddingResult
from router.openai.validation import Integer, StrictModel, ValidText, parse

MAX_INPUTS = 2048  # texts of one request, as in OpenAI's API

DECIMALS = 9
"""Of a number in JSON. Those of a float32 that is part of a vector of length 1 have no meaning beyond."""


def _input_tag(value: object) -> str:
    """Returns the union tag of ``input``, by the type of its first item if it is a list."""
    if not isinstance(value, list):
        return "<text>"
    return "<token_ids>" if value and isinstance(value[0], (int, list)) else "<texts>"


def _refuse_token_ids(value: object) -> NoReturn:
    raise PydanticCustomError(
        "token_ids",
        "must be text: token ids stand for other words in another model, and are not accepted "
        "(LangChain sends text if check_embedding_ctx_length is False)",
    )


Text = Annotated[ValidText, Field(min_length=1)]
Texts = Annotated[list[Text], Field(min_length=1, max_length=MAX_INPUTS, fail_fast=True)]


class EmbeddingsBody(StrictModel):
    """The JSON body of POST /v1/embeddings."""

    input: Annotated[
        Annotated[Text, Tag("<text>")]
        | Annotated[Texts, Tag("<texts>")]
        | Annotated[Any, BeforeValidator(_refuse_token_ids), Tag("<token_ids>")],
        Discriminator(_input_tag),
    ]
    model: ValidText
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[Integer, Field(ge=1)] | None = None
    user: ValidText | None = None


def embedding_request(body: bytes) -> EmbeddingRequest:
    """Returns the request in ``body``. Raises InvalidRequestError for a wrong field."""
    request = parse(EmbeddingsBody, body)
    if isinstance(request.input, str):
        texts, fields = [request.input], ["input"]
    else:
        texts = list(request.input)
        fields = [f"input[{place}]" for place in range(len(texts))]
    as_base64 = request.encoding_format == "base64"
    return EmbeddingRequest(request.model, texts, fields, request.dimensions, as_base64, request.user)


def embeddings_body(result: EmbeddingResult) -> str:
    """Returns the JSON body of the response. Call it in a thread: 1,000 vectors of 384 numbers take about 0.3 s, which
    is too long for an event loop. Other threads can run between two vectors."""
    vectors = _base64(result) if result.base64 else _numbers(result)
    data = ", ".join(
        f'{{"object": "embedding", "index": {index}, "embedding": {vector}}}' for index, vector in enumerate(vectors)
    )
    usage = json.dumps({"prompt_tokens": result.tokens, "total_tokens": result.tokens})
    return f'{{"object": "list", "data": [{data}], "model": {json.dumps(result.model)}, "usage": {usage}}}'


def _numbers(result: EmbeddingResult) -> Iterator[str]:
    """Yields each vector as a JSON array."""
    for vector in result.vectors:
        yield json.dumps(vector.astype(np.float64).round(DECIMALS).tolist())


def _base64(result: EmbeddingResult) -> Iterator[str]:
    """Yields the float32 of each vector in base64, the least significant byte first, as a JSON string."""
    for vector in result.vectors:
        yield f'"{base64.b64encode(vector.astype("<f4").tobytes()).decode()}"'
