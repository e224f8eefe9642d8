"""How /v1/embeddings names its model."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from router.config.settings import Settings


class EmbeddingsConfig(Settings):
    """The settings of /v1/embeddings."""

    aliases: tuple[Annotated[str, Field(pattern=r"^[!-~]{1,128}$")], ...] = Field((), max_length=128)
    """Further names of the model, for clients whose model name cannot be changed, such as text-embedding-3-small. Such
    a client gets vectors of this model, with its number of dimensions."""
