"""``TokenVerifier``: verifies JSON Web Tokens with the issuer's keys, which it reads in the background."""

from __future__ import annotations

import asyncio
import json
import logging

from joserfc.jwk import KeySet

from router.access.config_api_keys import unknown_key
from router.access.json_web_token import UnknownSigningKeyError, key_set_of, principal_in
from router.access.principal_cache import Verified
from router.config.access import JwtConfig
from router.errors import UnavailableError
from router.ports.clock import Clock
from router.ports.jwks_source import JwksSource

logger = logging.getLogger(__name__)

MIN_REFRESH_S = 10.0  # between two readings, however many tokens name an unknown key
FIRST_READ_S = 5.0  # the longest that the start waits for the key set


class TokenVerifier:
    """Verifies tokens with the newest key set of ``source``.

    The set is read at the start, every ``refresh_s`` seconds, and soon after a token names a key that is not in it: so
    a new key of the issuer works without a restart. Requests never wait for the set to be read. If reading fails, the
    last set stays in use.
    """

    def __init__(self, config: JwtConfig, source: JwksSource, clock: Clock) -> None:
        self._config = config
        self._source = source
        self._clock = clock
        self._keys: KeySet | None = None
        self._wanted = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Fetches the JWKS, waiting at most FIRST_READ_S, and starts the background refresh.

        An unreadable key set is logged, not raised. Until one arrives, ``verify`` raises UnavailableError.
        """
        try:
            async with asyncio.timeout(FIRST_READ_S):
                await self.refresh()
        except TimeoutError:
            logger.warning(
                "the issuer's key set did not arrive within %g s; tokens are refused until it does", FIRST_READ_S
            )
        self._reading = asyncio.create_task(self._read_on())

    async def close(self) -> None:
        """Stops the background refresh."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])

    def verify(self, token: str) -> Verified:
        """Returns the principal and the expiry of ``token``.

        Raises AuthenticationError for a token that is not valid, and UnavailableError before the first key set has been
        read.
        """
        if self._keys is None:
            raise UnavailableError(
                "The keys of the token issuer are not known yet.", "jwks_unavailable", retry_after_s=5
            )
        try:
            return principal_in(token, self._keys, self._config, self._clock.now())
        except UnknownSigningKeyError:
            self._wanted.set()
            raise unknown_key() from None

    async def refresh(self) -> None:
        """Reads the key set once. If that fails, logs the failure and keeps the last set."""
        try:
            self._keys = key_set_of(json.loads(await self._source.read()))
        except (OSError, ValueError) as error:
            logger.warning("the issuer's key set cannot be read: %s", error)

    async def _read_on(self) -> None:
        while True:
            await asyncio.sleep(min(MIN_REFRESH_S, self._config.refresh_s))
            try:
                async with asyncio.timeout(max(0.0, self._config.refresh_s - MIN_REFRESH_S)):
                    await self._wanted.wait()
            except TimeoutError:
                pass
            self._wanted.clear()
            await self.refresh()
