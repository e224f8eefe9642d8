"""``Authenticator``: finds the principal of a request by its API key or JSON Web Token."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from router.access.config_api_keys import ConfigKeys, bearer, digest_of, unknown_key
from router.access.json_web_token import looks_like_token
from router.access.key_format import ApiKey
from router.access.key_registry import KeyRegistry
from router.access.principal_cache import PrincipalCache, Verified
from router.access.token_verifier import TokenVerifier
from router.access.usage_feature import feature_of
from router.config.access import AccessConfig
from router.errors import UnavailableError
from router.ports.clock import Clock
from router.ports.state_store import StateUnavailableError
from router.principal import Principal

MAX_REFUSED = 1024  # unknown keys that are remembered


class Authenticator:
    """Finds the principal of a request by API keys of the config, API keys that the service created, and, if ``tokens``
    is set, JSON Web Tokens.

    A verified key is not looked up again for ``cache_s`` seconds. From half of that on, one request at a time looks it
    up again in the background, so that no request of a busy key waits for the store. Nor does any while the store
    cannot be reached: a key that was verified in the last ``stale_s`` seconds counts at once.
    """

    def __init__(
        self,
        config: AccessConfig,
        config_keys: ConfigKeys,
        registry: KeyRegistry,
        tokens: TokenVerifier | None,
        clock: Clock,
    ) -> None:
        self._config = config
        self._config_keys = config_keys
        self._registry = registry
        self._tokens = tokens
        self._clock = clock
        self._cache = PrincipalCache(config.cache_size)
        # Apart, so that guessed keys do not push the verified ones out.
        self._refused = PrincipalCache(MAX_REFUSED)
        self._looking_up: dict[str, asyncio.Task[Verified]] = {}  # by the digest of the key
        self._unreachable_at: float | None = None  # when a lookup last found that the store cannot be reached

    async def start(self) -> None:
        """Reads the token issuer's public keys, if tokens are accepted."""
        if self._tokens is not None:
            await self._tokens.start()

    async def close(self) -> None:
        """Cancels the running key look-ups and stops the refresh of the token issuer's keys."""
        for task in self._looking_up.values():
            task.cancel()
        if self._looking_up:
            await asyncio.wait(self._looking_up.values())
        if self._tokens is not None:
            await self._tokens.close()

    async def authenticate(self, credentials: str | None, feature: str | None = None) -> Principal:
        """Returns the principal who owns ``credentials``, which have the form ``Bearer KEY``. ``feature`` is the
        feature that the request names; None: it names none.

        Raises AuthenticationError for credentials that are missing, malformed, unknown, revoked or expired,
        InvalidRequestError for a malformed ``feature``, and UnavailableError if the key is not in the cache and the
        store cannot be reached, or if the token issuer's keys have not been read yet.
        """
        principal = await self._principal(bearer(credentials))
        return principal if feature is None else replace(principal, feature=feature_of(principal, feature))

    async def _principal(self, key: str) -> Principal:
        if (principal := self._config_keys.find(key)) is not None:
            return principal
        created = ApiKey.parse(key)
        if created is None and (self._tokens is None or not looks_like_token(key)):
            raise unknown_key()
        digest, now = digest_of(key), self._clock.now()
        found = self._cache.get(digest) or self._refused.get(digest)
        if found is None or not found.within(self._config.cache_s, now):
            found = self._verify_token(digest, key) if created is None else await self._look_up(digest, created, found)
        elif created is not None and not found.within(self._config.cache_s / 2, now):
            self._in_background(digest, created)
        if found.principal is None:
            raise unknown_key()
        return found.principal

    def _verify_token(self, digest: str, token: str) -> Verified:
        """Verifies a token and remembers it. Raises AuthenticationError, and UnavailableError before the first key
        set."""
        assert self._tokens is not None, "only called where tokens are accepted"
        found = self._tokens.verify(token)
        self._cache.put(digest, found)
        return found

    async def _look_up(self, digest: str, key: ApiKey, before: Verified | None) -> Verified:
        """Looks a key up and remembers the result. If the store cannot be reached, ``before`` counts for ``stale_s``.

        Raises UnavailableError if it cannot be reached and nothing counts.
        """
        now, lookup = self._clock.now(), self._in_background(digest, key)
        stale = before if before is not None and self._usable(before, now) else None
        # Else all requests of a key would wait for the deadline of the lookup that finds out whether the store is back.
        if stale is not None and self._unreachable(now):
            return stale
        try:
            return await asyncio.shield(lookup)
        except StateUnavailableError:
            if stale is not None:
                return stale
            message = "The key cannot be checked at the moment."
            raise UnavailableError(message, "state_unavailable", retry_after_s=1) from None

    def _usable(self, before: Verified, now: float) -> bool:
        """Returns whether an earlier verification counts while the store cannot be reached."""
        return before.principal is not None and before.within(self._config.stale_s, now)

    def _unreachable(self, now: float) -> bool:
        """Returns whether a lookup has found in the last ``cache_s`` seconds that the store cannot be reached, and none
        has reached it since."""
        return self._unreachable_at is not None and 0 <= now - self._unreachable_at < self._config.cache_s

    def _in_background(self, digest: str, key: ApiKey) -> asyncio.Task[Verified]:
        """Returns the task that looks a key up, a running one if there is one: a key has one lookup at a time."""
        if (running := self._looking_up.get(digest)) is not None:
            return running
        task = asyncio.create_task(self._verify_key(digest, key))
        self._looking_up[digest] = task
        task.add_done_callback(lambda done: self._looked_up(digest, done))
        return task

    def _looked_up(self, digest: str, task: asyncio.Task[Verified]) -> None:
        del self._looking_up[digest]
        if not task.cancelled():
            task.exception()  # retrieved, so that asyncio does not log it; a request that waits has it too

    async def _verify_key(self, digest: str, key: ApiKey) -> Verified:
        """Looks a key up in the store and remembers the result, also that it is unknown. Raises
        StateUnavailableError."""
        try:
            stored = await self._registry.find(key)
        except StateUnavailableError:
            self._unreachable_at = self._clock.now()
            raise
        self._unreachable_at, now = None, self._clock.now()
        found = Verified(None, now) if stored is None else Verified(stored.principal, now, stored.valid_until(now))
        known = stored is not None or self._cache.get(digest) is not None
        (self._cache if known else self._refused).put(digest, found)
        return found
