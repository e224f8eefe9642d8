"""Web pages of other origins that may call the API from a browser."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from router.config.settings import Settings

Origin = Annotated[str, Field(pattern=r"^(\*|[a-z][a-z0-9+.-]*://[!-)+-.0-@\[-~]{1,256})$")]
"""A scheme and a host, as browsers send them: in small letters, without a path and without patterns."""


class CorsConfig(Settings):
    """Cross-origin resource sharing (Fetch Standard, 3.2)."""

    allowed_origins: tuple[Origin, ...] = Field((), max_length=128)
    """Origins of the pages that may call the API, such as https://chat.example.com; ``*``: all. Empty: none may. A page
    has to bring the API key: cookies have no meaning here."""
    max_age_s: int = Field(600, ge=0, le=86_400)
    """Seconds for which a browser remembers that a page may call."""
