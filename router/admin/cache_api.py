"""``CacheApi``: the requests about stored answers, independent of the transport.

::

    POST /v1/cache/feedback          says whether a stored answer was right; a wrong one is deleted
    GET  /admin/v1/cache             how much each tenant has stored
    POST /admin/v1/cache/invalidate  counts, or deletes, the stored answers that a filter means
"""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from router.admin.admin_section import AdminCall
from router.admin.key_schemas import parse_document
from router.cache.cache_operations import CacheOperations
from router.errors import NotFoundError
from router.guard.guard_refusal import refusal
from router.ports.answer_cache import EntryFilter
from router.ports.cache_entry import CacheEntry
from router.ports.clock import Clock
from router.principal import Principal
from router.request_id import request_id
from safety.api import Guard, Origin, Passage, Subject

CACHE, INVALIDATE, FEEDBACK = "/admin/v1/cache", "/admin/v1/cache/invalidate", "/v1/cache/feedback"
METHODS = {CACHE: ("GET",), INVALIDATE: ("POST",), FEEDBACK: ("POST",)}
MAX_BODY_BYTES = 64 * 1024
MAX_AGE_S = 10**9

EntryId = Annotated[str, Field(pattern=r"^[0-9a-f]{64}-[0-9a-f]{12}$")]
Text = Annotated[str, Field(min_length=1, max_length=2000)]


class FeedbackBody(BaseModel):
    """The body of ``POST /v1/cache/feedback``. ``entry`` is the value of the header x-manta-cache-entry, ``question``
    the last message of the user, for a semantic hit."""

    model_config = ConfigDict(extra="forbid")

    entry: EntryId
    wrong: bool = True
    question: Text | None = None


class InvalidationBody(BaseModel):
    """The body of ``POST /admin/v1/cache/invalidate``: a filter. An entry matches if it matches every member that is
    set."""

    model_config = ConfigDict(extra="forbid")

    tenant: Text | None = None
    model_version: Text | None = None
    template_version: Text | None = None
    question_prefix: Text | None = None
    older_than_s: float | None = Field(None, ge=0, le=MAX_AGE_S)
    entry: EntryId | None = None
    all: bool = False
    dry_run: bool = True

    @model_validator(mode="after")
    def _check_filter(self) -> Self:
        members = self.model_dump(exclude={"all", "dry_run"}, exclude_none=True)
        if not members and not self.all:
            raise ValueError("name what is meant, or set all to true")
        return self

    def filter(self, now: float) -> EntryFilter:
        """Returns the filter for the store. ``now`` is the present time, in seconds since the epoch."""
        before_ms = None if self.older_than_s is None else int(1000 * (now - self.older_than_s))
        versions = self.model_version, self.template_version
        return EntryFilter(self.tenant, *versions, self.question_prefix, before_ms, self.entry)


class CacheApi:
    """Answers requests about stored answers. ``desk`` carries them out; None: the service has no answer cache.
    ``guard`` None: no text is inspected."""

    def __init__(self, desk: CacheOperations | None, clock: Clock, guard: Guard | None = None) -> None:
        self._desk = desk
        self._clock = clock
        self._guard = guard

    def methods(self, path: str) -> tuple[str, ...] | None:
        """Returns the HTTP methods that ``path`` accepts; None if this class does not serve ``path``."""
        return METHODS.get(path)

    async def answer(self, call: AdminCall, principal: Principal) -> dict[str, Any]:
        """Answers a request whose method and path are among ``methods``. The caller has checked that ``principal`` may
        make it. Raises InvalidRequestError, NotFoundError, StateUnavailableError, and the guard's refusal of a
        question."""
        if self._desk is None:
            raise NotFoundError("This service has no answer cache.", "cache_not_configured")
        if call.path == CACHE:
            sizes = await self._desk.sizes()
            data = [{"tenant": each.tenant, "entries": each.entries, "bytes": each.bytes} for each in sizes]
            return {"object": "list", "data": data}
        if call.path == FEEDBACK:
            said = parse_document(FeedbackBody, await call.read(MAX_BODY_BYTES))
            question = await self._inspected(said.question, principal)
            deleted = await self._desk.judge(
                principal.tenant, said.entry, principal.key_id, wrong=said.wrong, question=question
            )
            return {"object": "cache_feedback", "entry": said.entry, "wrong": said.wrong, "deleted": deleted}
        return await self._invalidate(self._desk, await call.read(MAX_BODY_BYTES), principal)

    async def _inspected(self, question: str | None, principal: Principal) -> str:
        """Returns a question as the cache was asked it: what the guard redacts in requests is redacted in it too."""
        if self._guard is None or question is None:
            return question or ""
        subject = Subject(principal.tenant, request_id(None), principal.key_id, principal.user, principal.role.value)
        ruling = await self._guard.inspect(subject, [Passage(question, Origin.USER, "question")])
        if ruling.refused:
            raise refusal(ruling)
        return ruling.texts[0]

    async def _invalidate(self, desk: CacheOperations, body: bytes, principal: Principal) -> dict[str, Any]:
        asked = parse_document(InvalidationBody, body)
        which = asked.filter(self._clock.now())
        found = await (desk.matching(which) if asked.dry_run else desk.invalidate(which, principal.key_id))
        sample = [entry_document(entry) for entry in found.sample]
        return {"object": "cache_invalidation", "dry_run": asked.dry_run, "count": found.count, "sample": sample}


def entry_document(entry: CacheEntry) -> dict[str, Any]:
    """Returns a cache entry as the JSON object shown to administrators, without the tenant's texts. Times are in
    seconds since the epoch."""
    return {
        "entry": entry.id,
        "tenant": entry.tenant,
        "model_version": entry.model_version,
        "template_version": entry.template_version,
        "created_at": entry.created_ms / 1000,
        "expires_at": entry.expires_ms / 1000,
        "semantic": entry.semantic,
        "question_characters": len(entry.question),
    }
