"""The base of all settings, and names in them."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Settings(BaseModel):
    """The base of all settings: immutable, unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@-]{0,63}$")]
"""The name of a tenant, team or feature: up to 64 characters that need no escaping in a header, a URL or a CSV file."""


Names = Annotated[tuple[Annotated[str, Field(min_length=1, max_length=128)], ...], Field(min_length=1, max_length=128)]
