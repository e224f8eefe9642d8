"""``FileJwks`` and ``UrlJwks``: implement the router's port ``JwksSource`` with a file and with HTTP."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx

from router.config.access import JwtConfig
from router.ports.jwks_source import JwksSource

MAX_JWKS_BYTES = 1024 * 1024
TIMEOUT_S = 10.0  # of one reading in all


class FileJwks:
    """Reads the key set in the file ``path``. Implements ``JwksSource``."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def read(self) -> bytes:
        return await asyncio.to_thread(self._read)

    def _read(self) -> bytes:
        with self._path.open("rb") as file:
            found = file.read(MAX_JWKS_BYTES + 1)
        return _bounded(found)


class UrlJwks:
    """Reads the key set at ``url``. Implements ``JwksSource``. Redirects are not followed, since they could lead
    anywhere."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def read(self) -> bytes:
        try:
            async with asyncio.timeout(TIMEOUT_S), httpx.AsyncClient(follow_redirects=False, trust_env=False) as http:
                return await self._fetch(http)
        except (httpx.HTTPError, TimeoutError) as error:
            raise OSError(f"the key set cannot be fetched: {type(error).__name__}") from error

    async def _fetch(self, http: httpx.AsyncClient) -> bytes:
        found = b""
        async with http.stream("GET", self._url, headers={"accept": "application/json"}) as answer:
            if answer.status_code != 200:
                raise OSError(f"the key set cannot be fetched: status {answer.status_code}")
            async for part in answer.aiter_bytes():
                found = _bounded(found + part)
        return found


def jwks_source(config: JwtConfig | None) -> JwksSource | None:
    """Returns the source that ``config`` names; None without access by tokens."""
    if config is None:
        return None
    return UrlJwks(config.jwks_url) if config.jwks_file is None else FileJwks(Path(config.jwks_file))  # type: ignore[arg-type]  # one of both is set


def _bounded(found: bytes) -> bytes:
    """Returns ``found``. Raises OSError if it is larger than MAX_JWKS_BYTES."""
    if len(found) > MAX_JWKS_BYTES:
        raise OSError(f"the key set has more than {MAX_JWKS_BYTES} bytes")
    return found
