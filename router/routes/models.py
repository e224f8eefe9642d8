"""``ModelRoute``: answers /v1/models."""

from __future__ import annotations

from collections.abc import Sequence

from router.errors import NotFoundError, RefusalError
from router.openai.errors import error_body
from router.openai.models import model_list
from router.ports.embedder import Embedder
from router.ports.tier_backend import TierBackend
from router.requests.model_requests import ModelRequests
from router.routes.error_bodies import ErrorBodies
from router.transport.http_exchange import HttpExchange
from router.transport.printable import printable

MODELS = "/v1/models"


class ModelRoute:
    """Answers with the models that the API key may use, or with one of them. ``created`` is the time that the list
    gives for all models, in seconds since 1970."""

    def __init__(self, requests: ModelRequests, backend: TierBackend, embedder: Embedder | None, created: int) -> None:
        self._requests = requests
        self._backend = backend
        self._embedder = embedder
        self._created = created

    def methods(self, path: str) -> Sequence[str] | None:
        return ("GET", "HEAD") if path == MODELS or path.startswith(MODELS + "/") else None

    def error_body(self, refusal: RefusalError) -> str:
        return error_body(refusal)

    async def answer(self, exchange: HttpExchange, path: str, errors: ErrorBodies) -> None:
        """Raises AuthenticationError, and NotFoundError for a model that the key may not use or that does not exist."""
        name = path.removeprefix(MODELS).removeprefix("/")
        names = await self._requests.run(exchange.header("authorization"))
        models = model_list(names, self._backend.tiers(), self._backend.snapshot(), self._created, self._embedder)
        if not name:
            return await exchange.answer(200, models)
        found = next((model for model in models["data"] if model["id"] == name), None)
        if found is None:
            raise NotFoundError(f"The model '{printable(name)}' does not exist.", "model_not_found", "model")
        return await exchange.answer(200, found)
