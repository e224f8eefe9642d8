"""``JwksSource``: the port to the key set that the issuer of JSON Web Tokens publishes."""

from __future__ import annotations

from typing import Protocol


class JwksSource(Protocol):
    """The issuer's key set (JWKS, RFC 7517), in a file or at an address."""

    async def read(self) -> bytes:
        """Returns the key set as JSON. Raises OSError if it cannot be read in time, or is too large."""
        ...
