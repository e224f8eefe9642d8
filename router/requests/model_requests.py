"""``ModelRequests``: the way of a request for the names of models."""

from __future__ import annotations

from collections.abc import Sequence

from router.access.authenticator import Authenticator
from router.access.permissions import allowed_models, allowed_tiers
from router.embedding_request import EMBEDDINGS
from router.embeddings.embedding import embedding_models
from router.ports.embedder import Embedder
from router.tiers.choose_tier import TierChoice, model_names


class ModelRequests:
    """Lists the models of the service. ``embedder`` None: none of them embeds. ``aliases`` are other names of its
    model."""

    def __init__(
        self,
        authenticator: Authenticator,
        choice: TierChoice,
        embedder: Embedder | None,
        aliases: Sequence[str],
    ) -> None:
        self._authenticator = authenticator
        self._choice = choice
        self._embedder = embedder
        self._aliases = aliases

    async def run(self, credentials: str | None) -> dict[str, str]:
        """Returns the model names that the API key may use. Each is mapped to its tier, to ``auto`` or to
        ``embeddings``.

        Raises AuthenticationError for credentials that are missing, malformed or unknown, and UnavailableError if they
        cannot be checked.
        """
        principal = await self._authenticator.authenticate(credentials)
        names = model_names(self._choice, allowed_tiers(principal, self._choice.tiers))
        others = embedding_models(self._embedder, self._aliases)
        return allowed_models(principal, {**dict.fromkeys(others, EMBEDDINGS), **names})
