"""``EmbedderConfig``: the branch ``embedder`` of the config tree."""

from __future__ import annotations

from pydantic import Field

from cluster.model_service.config import ModelServiceConfig


class EmbedderConfig(ModelServiceConfig):
    """The settings of the deployment ``Embedder``, and of the routers' calls to it."""

    model: str = Field(min_length=1)
    """A directory as sentence-transformers writes them, of a BERT encoder with mean or [CLS] pooling, or
    ``package:DISTRIBUTION/DIRECTORY`` for one in an installed Python package, none of whose code is run. It must be on
    the nodes of the replicas, and where the application is built."""
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    """What the SHA-256 of the model's weights must be. None: they are not checked."""
    name: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """The name of the model, which requests give as ``model``. None: the last part of ``model``."""
    optional: bool = False
    """Whether the service starts without embeddings where the model is missing."""
