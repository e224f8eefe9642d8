"""``IdempotentRequests``: a request with the header Idempotency-Key is run once, however often it is sent.

::

    claim ┬ CLAIMED   → Claim: the lease is renewed → keep (a whole answer) or release (an error, a stream); a refusal
          │             does not wait for the release
          ├ RUNNING   → 409
          ├ ANSWERED  → Claim with the stored answer
          └ DIFFERENT → 422

The key of a router that has died is free when its lease ends. The next request with it inherits the account, so that
the ledger has one entry for both. If that one is refused before the ledger knows of it, the next one inherits it again.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import uuid
from dataclasses import replace
from types import TracebackType

from router.cancellation_shield import finished
from router.config.idempotency import IdempotencyConfig
from router.errors import ConflictError, InvalidRequestError, RateLimitError, UnprocessableError
from router.idempotency.key_releases import KeyReleases
from router.ports.idempotency_store import IdempotencyStore, KeyState, KeyTerms
from router.ports.state_store import StateUnavailableError

logger = logging.getLogger(__name__)

RETRY_AFTER_S = 1.0  # of a request whose key another one has
RENEWALS = 3  # within a lease
KEY = re.compile(r"[ -~]{1,255}")


class Claim:
    """The claim of a request on its idempotency key; also that of a request without a key. ``stored``: the answer that
    was given before, which is given again; None: there is none. ``account``: the id of the ledger entry. ``run`` tells
    the request from another one with the same account, which may still run; "": there is none. ``ignored``: the request
    has a key that has no effect. ``recorded``: the ledger will have an entry of this request under the account. It is
    an asynchronous context manager, which holds the key until its end."""

    stored: str | None = None
    run: str = ""
    recorded: bool = False

    def __init__(self, account: str, *, ignored: bool = False) -> None:
        self.account = account
        self.ignored = ignored

    async def __aenter__(self) -> Claim:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    async def keep(self, answer: str) -> None:
        """Stores the whole answer. One of this and ``forget`` is called, before the client gets an answer."""

    async def forget(self) -> None:
        """Frees the key, since the answer is not whole."""


class Answered(Claim):
    """The claim of a request that was answered before. ``stored`` is the stored answer, as ``keep`` got it."""

    def __init__(self, stored: str) -> None:
        super().__init__("")
        self.stored = stored


class HeldKey(Claim):
    """The claim of the request that has its key. A key whose request has failed, or is streamed, is free afterwards."""

    def __init__(
        self,
        store: IdempotencyStore,
        tenant: str,
        key: str,
        owner: str,
        account: str,
        config: IdempotencyConfig,
        releases: KeyReleases,
    ) -> None:
        super().__init__(account)
        self._store = store
        self._held = tenant, key, owner
        self._releases = releases
        self._terms = terms_of(config)
        self._max_bytes = config.max_answer_bytes
        self._lease_s = config.lease_s
        self._renewing: asyncio.Task[None] | None = None
        self.whole = False  # whether ``keep`` will be called

    async def __aenter__(self) -> Claim:
        self._renewing = asyncio.create_task(self._renew())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._renewing is not None:
            self._renewing.cancel()
            self._renewing = None  # the traceback of its cancellation has a frame that holds this
        if isinstance(error, RateLimitError):
            self._releases.begin(*self._held[:2], self._release())  # a refusal is an answer at once
        elif kind is not None or not self.whole:
            await finished(self._release())

    async def keep(self, answer: str) -> None:
        await finished(self._keep(answer))

    async def forget(self) -> None:
        await finished(self._release())

    async def _keep(self, answer: str) -> None:
        if len(answer.encode()) > self._max_bytes:
            return await self._release()
        try:
            await self._store.answer(*self._held, answer, self._terms)
        except StateUnavailableError as fault:
            logger.warning("an answer was not stored under its idempotency key: %s", fault)

    async def _release(self) -> None:
        """Frees the key. An account that was inherited, and under which this request has no entry, stays with it: there
        may be one of the router that has died."""
        try:
            if self.run and not self.recorded:
                await self._store.renew(*self._held, replace(self._terms, lease_ms=0))
            else:
                await self._store.release(*self._held)
        except StateUnavailableError:
            logger.info("an idempotency key stays taken until its lease ends")

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._lease_s / RENEWALS)
            try:
                if not await self._store.renew(*self._held, self._terms):
                    return
            except StateUnavailableError as fault:
                logger.info("the lease of an idempotency key was not renewed: %s", fault)


class IdempotentRequests:
    """Claims the keys of requests in ``store``."""

    def __init__(self, store: IdempotencyStore, config: IdempotencyConfig) -> None:
        self._store = store
        self._config = config
        self._releases = KeyReleases()

    async def start(self) -> None:
        """Prepares the store."""
        await self._store.start()

    async def close(self) -> None:
        """Closes the store, when the keys of refused requests are free."""
        await self._releases.finish()
        await self._store.close()

    async def claim(
        self, tenant: str, key_id: str, key: str | None, content: tuple[str, bytes], *, streamed: bool
    ) -> Claim:
        """Claims the idempotency key ``key`` for a request; None: the request has no key. ``key_id`` is the id of the
        API key, within which idempotency keys are unique. ``content`` is the path and the body of the request.
        ``streamed``: the answer is sent as a stream, which is not stored. If the store cannot be reached, the key is
        ignored.

        Raises ConflictError while another request has the key, UnprocessableError if it was used for another request,
        and InvalidRequestError for a key that is not printable ASCII of up to 255 characters.
        """
        account = uuid.uuid4().hex
        if key is None:
            return Claim(account)
        if not KEY.fullmatch(key):
            message = "The header idempotency-key must be 1 to 255 printable ASCII characters."
            raise InvalidRequestError(message, "invalid_header", "idempotency-key")
        if not self._config.enabled:
            return Claim(account, ignored=True)
        name = digest(key_id.encode(), key.encode())
        request = digest(content[0].encode(), content[1])
        owner = uuid.uuid4().hex
        await self._releases.wait(tenant, name)  # else a client that comes again at once finds its key taken
        try:
            state, value = await self._store.claim(tenant, name, request, owner, account, terms_of(self._config))
        except StateUnavailableError:
            # With an account of its own: the store may have the key all the same, and give the first one to a retry.
            return Claim(uuid.uuid4().hex, ignored=True)
        if state is KeyState.RUNNING:
            message = "Another request with this idempotency key is in progress."
            raise ConflictError(message, "idempotency_key_in_use", retry_after_s=RETRY_AFTER_S)
        if state is KeyState.DIFFERENT:
            message = "This idempotency key was used for another request."
            raise UnprocessableError(message, "idempotency_key_reused")
        if state is KeyState.ANSWERED:
            return Answered(value)
        held = HeldKey(self._store, tenant, name, owner, value, self._config, self._releases)
        held.whole = not streamed
        held.run = "" if value == account else owner[:8]
        return held


def terms_of(config: IdempotencyConfig) -> KeyTerms:
    """Returns the terms on which the store keeps keys and answers: times and sizes."""
    lease_ms, window_ms = int(1000 * config.lease_s), int(1000 * config.window_s)
    return KeyTerms(lease_ms, window_ms, config.max_keys, config.max_bytes)


def digest(first: bytes, second: bytes) -> str:
    """Returns a digest of two byte strings. It depends on where the first ends."""
    return hashlib.sha256(b"%d:%b%b" % (len(first), first, second)).hexdigest()
