"""``StoredPrompts``: the stored prompts of all tenants as requests and administrators use them.

A version never changes, so a compiled one is kept. The number of the active version is cached for ``cache_s`` seconds,
then read again in the background, so that no request but the first waits for the store. While the store does not
answer, the number that was read last is used.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

from router.errors import ConflictError, InvalidRequestError, NotFoundError, UnavailableError
from router.ports.clock import Clock
from router.ports.prompt_store import (
    Activation,
    ActivationKind,
    PromptStore,
    PromptStoreFullError,
    PromptSummary,
    StoredVersion,
)
from router.ports.state_store import StateUnavailableError
from router.prompts.prompt_template import PROMPT_ID, PromptTemplate, TemplateDocument, parse_template
from router.prompts.rollback_target import previous_version

logger = logging.getLogger(__name__)

CACHE_S = 5.0
MAX_COMPILED = 1_000  # versions; one has up to some hundred kilobytes
MAX_REMEMBERED = 10_000  # active versions


class VersionDetail(NamedTuple):
    """A stored version: who wrote it and when, in milliseconds since the epoch."""

    version: int
    at_ms: int
    by: str
    template: TemplateDocument


class _Compiled(NamedTuple):
    """A compiled version. ``document`` is the digest of the stored one."""

    template: PromptTemplate
    document: bytes


class _Active(NamedTuple):
    """The active version as it was read, and when, in seconds. None: there is none."""

    version: int | None
    at: float


class StoredPrompts:
    """The prompts in ``store``. ``clock`` stamps changes; ``now`` is a clock in seconds for the expiry of cached
    versions."""

    def __init__(
        self, store: PromptStore, clock: Clock, cache_s: float = CACHE_S, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._clock = clock
        self._cache_s = cache_s
        self._now = now
        self._compiled: OrderedDict[tuple[str, str, int], _Compiled] = OrderedDict()
        self._active: OrderedDict[tuple[str, str], _Active] = OrderedDict()
        self._reading: dict[tuple[str, str], asyncio.Task[int | None]] = {}

    async def start(self) -> None:
        """Starts the store."""
        await self._store.start()

    async def close(self) -> None:
        """Closes the store."""
        await self._store.close()

    async def template(self, tenant: str, prompt_id: str, version: int | None) -> PromptTemplate:
        """Returns a version of a tenant's prompt, the active one for None.

        Raises NotFoundError that names the field, and UnavailableError if the store does not answer and the version is
        not in the cache, or if this release cannot read the version.
        """
        if not PROMPT_ID.fullmatch(prompt_id):
            raise _unknown(prompt_id)
        try:
            if version is None and (version := await self._active_version(tenant, prompt_id)) is None:
                raise _unknown(prompt_id)
            return await self._version(tenant, prompt_id, version)
        except StateUnavailableError:
            message = "The stored prompts cannot be read at the moment."
            raise UnavailableError(message, "state_unavailable", retry_after_s=1) from None

    async def put(self, tenant: str, prompt_id: str, document: bytes, by: str) -> VersionDetail:
        """Stores a new version. Raises InvalidRequestError that names the wrong field, ConflictError for too many
        versions or prompts, and StateUnavailableError if the store does not answer. ``by`` is the name of the
        author."""
        _check_id(prompt_id)
        parsed = (await asyncio.to_thread(parse_template, prompt_id, 0, document)).document
        at_ms = self._now_ms()
        stored = json.dumps({"at_ms": at_ms, "by": by, "template": parsed.model_dump()})
        try:
            version = await self._store.add(tenant, prompt_id, stored)
        except PromptStoreFullError as error:
            raise ConflictError(f"No version can be added: {error}.", "too_many_prompts") from None
        return VersionDetail(version, at_ms, by, parsed)

    async def activate(self, tenant: str, prompt_id: str, version: int, by: str) -> Activation:
        """Makes a version the active one, and returns the activation. ``by`` is the name of the person who asked for
        it.

        Raises InvalidRequestError for a malformed id, NotFoundError for an unknown prompt or version, and
        StateUnavailableError.
        """
        _check_id(prompt_id)
        return await self._set_active(tenant, prompt_id, version, ActivationKind.ACTIVATE, by)

    async def roll_back(self, tenant: str, prompt_id: str, by: str) -> Activation:
        """Activates the version that was active before the present one, and returns the new activation. Each further
        rollback goes one version further back. ``by`` is the name of the person who asked for it.

        Raises InvalidRequestError for a malformed id, NotFoundError for an unknown prompt or a version that is gone,
        ConflictError if no other version was active before, and StateUnavailableError.
        """
        _check_id(prompt_id)
        history = await self._store.activations(tenant, prompt_id)
        if not history and not await self._store.versions(tenant, prompt_id):
            raise _unknown(prompt_id, "id")
        if (version := previous_version(history)) is None:
            raise ConflictError("No other version was active before.", "no_previous_version")
        return await self._set_active(tenant, prompt_id, version, ActivationKind.ROLLBACK, by)

    async def prompts(self, tenant: str | None) -> Sequence[PromptSummary]:
        """Returns the prompts of a tenant, or of all tenants for None. Raises StateUnavailableError."""
        return await self._store.prompts(tenant)

    async def history(self, tenant: str, prompt_id: str) -> tuple[Sequence[VersionDetail], Sequence[Activation]]:
        """Returns the versions of a prompt and its activations, the oldest first. Raises InvalidRequestError for a
        malformed id, NotFoundError for an unknown prompt, and StateUnavailableError."""
        _check_id(prompt_id)
        stored = await self._store.versions(tenant, prompt_id)
        if not stored:
            raise _unknown(prompt_id, "id")
        found = [detail for detail in map(_detail, stored) if detail is not None]
        return found, await self._store.activations(tenant, prompt_id)

    async def _set_active(self, tenant: str, prompt_id: str, version: int, kind: ActivationKind, by: str) -> Activation:
        activation = Activation(version, kind, self._now_ms(), by)
        if not await self._store.activate(tenant, prompt_id, activation):
            message = f"The prompt '{prompt_id}' has no version {version}."
            raise NotFoundError(message, "prompt_version_not_found", "version")
        self._remember((tenant, prompt_id), version)
        return activation

    async def _active_version(self, tenant: str, prompt_id: str) -> int | None:
        """Returns the active version. Waits for the store at the first time, and while there is none."""
        key = (tenant, prompt_id)
        found = self._active.get(key)
        if found is None or found.version is None:
            return await asyncio.shield(self._read(key))
        self._active.move_to_end(key)
        if self._now() - found.at >= self._cache_s:
            self._read(key)
        return found.version

    def _read(self, key: tuple[str, str]) -> asyncio.Task[int | None]:
        """Returns the task that reads which version is active, a running one if there is one."""
        if (running := self._reading.get(key)) is None:
            running = self._reading[key] = asyncio.create_task(self._fetch(key))
            running.add_done_callback(lambda task: self._read_ended(key, task))
        return running

    def _read_ended(self, key: tuple[str, str], task: asyncio.Task[int | None]) -> None:
        self._reading.pop(key, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.warning("the active version of a prompt cannot be read: %s", error)

    async def _fetch(self, key: tuple[str, str]) -> int | None:
        began = self._now()
        found = await self._store.active(*key)
        if found is not None and not self._has(*key, found):
            await self._compile(*key, found)
        version = None if found is None else found.version
        known = self._active.get(key)
        if known is not None and known.at > began:  # this router has activated another one meanwhile
            return known.version
        if version is not None:  # a name that no tenant has is not remembered: clients could send any number of them
            self._remember(key, version)
        return version

    async def _version(self, tenant: str, prompt_id: str, version: int) -> PromptTemplate:
        key = (tenant, prompt_id, version)
        if (known := self._compiled.get(key)) is not None:
            self._compiled.move_to_end(key)
            return known.template
        found = await self._store.version(*key)
        if found is None:
            message = f"The prompt '{prompt_id}' has no version {version}."
            raise NotFoundError(message, "prompt_version_not_found", "prompt.version")
        return await self._compile(tenant, prompt_id, found)

    def _has(self, tenant: str, prompt_id: str, stored: StoredVersion) -> bool:
        """Returns whether ``stored`` is compiled. If another document had its number, the store has lost its data
        since, and all compiled versions of the prompt are forgotten."""
        known = self._compiled.get((tenant, prompt_id, stored.version))
        if known is not None and known.document != _digest(stored):
            for key in [each for each in self._compiled if each[:2] == (tenant, prompt_id)]:
                del self._compiled[key]
            return False
        return known is not None

    async def _compile(self, tenant: str, prompt_id: str, stored: StoredVersion) -> PromptTemplate:
        detail = _detail(stored)
        if detail is None:
            message = f"This release cannot read version {stored.version} of the prompt '{prompt_id}'."
            raise UnavailableError(message, "prompt_not_readable", "prompt.version")
        try:
            made = await asyncio.to_thread(PromptTemplate, prompt_id, stored.version, detail.template)
        except InvalidRequestError as error:
            message = f"Version {stored.version} of the prompt '{prompt_id}' does not work in this release: {error}"
            raise UnavailableError(message, "prompt_not_readable", "prompt.version") from None
        self._compiled[tenant, prompt_id, stored.version] = _Compiled(made, _digest(stored))
        if len(self._compiled) > MAX_COMPILED:
            self._compiled.popitem(last=False)
        return made

    def _remember(self, key: tuple[str, str], version: int) -> None:
        self._active[key] = _Active(version, self._now())
        self._active.move_to_end(key)
        if len(self._active) > MAX_REMEMBERED:
            self._active.popitem(last=False)

    def _now_ms(self) -> int:
        return int(self._clock.now() * 1000)


def _detail(stored: StoredVersion) -> VersionDetail | None:
    """Returns a stored version; None, which is logged, if this release cannot read it."""
    try:
        document = json.loads(stored.document)
        template = TemplateDocument.model_validate(document["template"])
        return VersionDetail(stored.version, int(document["at_ms"]), str(document["by"]), template)
    except (ValueError, KeyError, TypeError):
        logger.error("version %d of a prompt cannot be read by this release", stored.version)
        return None


def _digest(stored: StoredVersion) -> bytes:
    return hashlib.blake2b(stored.document.encode(), digest_size=16).digest()


def _check_id(prompt_id: str) -> None:
    if not PROMPT_ID.fullmatch(prompt_id):
        message = "id: has up to 64 letters, digits and . _ -, and begins with a letter or a digit."
        raise InvalidRequestError(message, "invalid_value", "id")


def _unknown(prompt_id: str, field: str = "prompt.id") -> NotFoundError:
    shown = prompt_id.encode("ascii", "backslashreplace").decode()[:64]
    return NotFoundError(f"There is no prompt '{shown}' with an active version.", "prompt_not_found", field)
