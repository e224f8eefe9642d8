"""Embeddings of texts, by the embedder of the service: names, checks, and vectors of fewer dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from engine.api import SamplingParams, Usage
from router.answer_events import Stamp
from router.embedding_request import EmbeddingRequest, EmbeddingResult
from router.errors import InvalidRequestError, NotFoundError, PermissionDeniedError, UnavailableError
from router.inference_request import InferenceRequest
from router.ports.embedder import Embedder, EmbedderUnavailableError, TextTooLongError
from router.principal import Principal
from router.usage_meter import UsageMeter


def embedding(embedder: Embedder | None) -> Embedder:
    """Returns ``embedder``. Raises NotFoundError if the service has none."""
    if embedder is None:
        raise NotFoundError("This service has no embeddings.", "embeddings_not_configured")
    return embedder


def embedding_models(embedder: Embedder | None, aliases: Sequence[str]) -> list[str]:
    """Returns the names that requests may give as ``model``: the model's name without its version, and ``aliases``;
    none without an embedder."""
    return [] if embedder is None else [embedder.model.partition("@")[0], *aliases]


def check_embedding(
    request: EmbeddingRequest, principal: Principal, embedder: Embedder, aliases: Sequence[str]
) -> None:
    """Checks the model and the dimensions of ``request``. ``name@version`` is accepted too.

    Raises NotFoundError for a model that does not exist, PermissionDeniedError for one that ``principal`` may not ask
    for, and InvalidRequestError for more dimensions than the model has.
    """
    name, models = request.model, embedding_models(embedder, aliases)
    if name not in models and name != embedder.model:
        shown = name.encode("ascii", "backslashreplace").decode()[:64]
        message = f"There is no embedding model '{shown}'. Available: {', '.join(models)}."
        raise NotFoundError(message, "model_not_found", "model")
    known = models[0] if name == embedder.model else name
    if principal.models is not None and not {name, known} & principal.models:
        raise PermissionDeniedError(f"This key may not use the model '{name}'.", "model_not_allowed", "model")
    if request.dimensions is not None and request.dimensions > embedder.dimensions:
        message = f"Invalid 'dimensions': the model '{models[0]}' has {embedder.dimensions}."
        raise InvalidRequestError(message, "invalid_value", "dimensions")


async def embedded(embedder: Embedder, request: EmbeddingRequest, tenant: str, meter: UsageMeter) -> EmbeddingResult:
    """Returns the vectors of the request's texts, which are ``tenant``'s, and counts their tokens in ``meter``.

    Raises InvalidRequestError that names the field of a text that is too long, and UnavailableError if the embedder
    does not answer.
    """
    try:
        found = await embedder.embed(request.texts, tenant)
    except TextTooLongError as error:
        message = (
            f"This model's maximum input length is {error.max_tokens} tokens, but the input has {error.tokens}. "
            "Nothing is cut off: please divide the text."
        )
        raise InvalidRequestError(message, "context_length_exceeded", request.fields[error.index]) from None
    except EmbedderUnavailableError:
        message = "The embedding model does not answer at the moment."
        raise UnavailableError(message, "embeddings_unavailable", retry_after_s=1) from None
    count = sum(found.tokens)
    meter.attempt(count).report(Usage(count, 0, 0))
    return EmbeddingResult(found.model, shortened(found.vectors, request.dimensions), count, request.base64)


def shortened(vectors: NDArray[np.float32], dimensions: int | None) -> NDArray[np.float32]:
    """Returns ``vectors``, float32 [texts, numbers], cut to the first ``dimensions`` numbers and normalised to length 1
    again; None: unchanged.

    The loss of quality is greater for a model that was not trained for this (Matryoshka, Kusupati et al. 2022,
    arXiv:2205.13147). A vector whose first numbers are all 0 stays so.
    """
    if dimensions is None or dimensions >= vectors.shape[1]:
        return vectors
    cut = vectors[:, :dimensions]
    result: NDArray[np.float32] = cut / np.linalg.norm(cut, axis=1, keepdims=True).clip(np.finfo(np.float32).tiny)
    return result


def priced_request(request: EmbeddingRequest) -> InferenceRequest:
    """Returns a request by which ledger and limits count ``request``: its texts as prompts without an answer."""
    sampling = SamplingParams(max_tokens=0)
    return InferenceRequest(request.model, tuple(request.texts), sampling, "input", _no_answer, user=request.user)


def _no_answer(stamp: Stamp) -> NoReturn:
    raise AssertionError("embeddings have no answer to write")
