"""``PromptApi``: the requests to ``/admin/v1/prompts``, independent of the transport.

::

    GET    /admin/v1/prompts                                    lists prompts; ``?tenant=``
    GET    /admin/v1/prompts/{tenant}/{id}                      shows one: versions, activations
    POST   /admin/v1/prompts/{tenant}/{id}/versions             stores a new version; ``?activate=true``
    GET    /admin/v1/prompts/{tenant}/{id}/versions/{version}   shows one
    POST   /admin/v1/prompts/{tenant}/{id}/activate             makes a version the active one
    POST   /admin/v1/prompts/{tenant}/{id}/rollback             goes back to the one that was active before
    POST   /admin/v1/prompts/{tenant}/{id}/render               shows the messages for some variables
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from router.admin.admin_section import AdminCall, RecordChange
from router.admin.key_schemas import parse_document
from router.errors import InvalidRequestError, NotFoundError
from router.ports.prompt_store import Activation
from router.principal import Principal
from router.prompts.prompt_template import MAX_DOCUMENT_BYTES
from router.prompts.stored_prompts import StoredPrompts, VersionDetail

PROMPTS = "/admin/v1/prompts"
MAX_BODY_BYTES = 2 * MAX_DOCUMENT_BYTES  # in JSON, a character may take six bytes
PATH = re.compile(
    rf"{PROMPTS}/(?P<tenant>[A-Za-z0-9][A-Za-z0-9._:@-]{{0,63}})/(?P<id>[^/]{{1,128}})"
    r"(?:/(?P<action>versions|activate|rollback|render))?(?:/(?P<version>[0-9]{1,9}))?"
)


class Actor(BaseModel):
    """The base of bodies that may name the person who acts, for keys that several people share."""

    model_config = ConfigDict(extra="forbid")

    author: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")


class ActivationBody(Actor):
    """The body of ``POST .../activate``."""

    version: int = Field(ge=1, le=2**31)


class RenderBody(BaseModel):
    """The body of ``POST .../render``. ``version`` None: the active one."""

    model_config = ConfigDict(extra="forbid")

    version: int | None = Field(None, ge=1, le=2**31)
    variables: dict[str, Any] = {}


class PromptApi:
    """Answers requests of administrators about stored prompts. Each coroutine raises StateUnavailableError if the store
    cannot be reached."""

    def __init__(self, book: StoredPrompts, record_change: RecordChange) -> None:
        self._book = book
        self._record_change = record_change

    def methods(self, path: str) -> tuple[str, ...] | None:
        """Returns the HTTP methods that ``path`` accepts; None if this class does not serve ``path``."""
        if path == PROMPTS:
            return ("GET",)
        if (found := PATH.fullmatch(path)) is None:
            return None
        if found["version"] is not None:
            return ("GET",) if found["action"] == "versions" else None
        return ("GET",) if found["action"] is None else ("POST",)

    async def answer(self, call: AdminCall, principal: Principal) -> dict[str, Any]:
        """Answers a request whose method and path are among ``methods``.

        Raises InvalidRequestError that names the wrong field, NotFoundError and ConflictError.
        """
        if call.path == PROMPTS:
            return await self._list(call.parameters)
        parts = PATH.fullmatch(call.path)
        assert parts is not None, "methods() knows the path"
        tenant, prompt_id = parts["tenant"], parts["id"]
        if call.method == "GET":
            return await self._shown(tenant, prompt_id, parts["version"])
        if parts["action"] == "versions":
            return await self._put(tenant, prompt_id, call.parameters, await call.read(MAX_BODY_BYTES), principal)
        body = await call.read(MAX_BODY_BYTES)
        if parts["action"] == "render":
            return await self._rendered(tenant, prompt_id, parse_document(RenderBody, body))
        if parts["action"] == "activate":
            asked = parse_document(ActivationBody, body)
            return await self._activated(tenant, prompt_id, asked.version, _by(principal, asked.author))
        by = _by(principal, parse_document(Actor, body).author)
        return self._changed(tenant, prompt_id, await self._book.roll_back(tenant, prompt_id, by))

    async def _list(self, parameters: Mapping[str, str]) -> dict[str, Any]:
        _check_names(parameters, "tenant")
        found = await self._book.prompts(parameters.get("tenant") or None)
        data = [
            {"object": "prompt", "tenant": each.tenant, "id": each.id, "active": each.active, "latest": each.latest}
            for each in found
        ]
        return {"object": "list", "data": data}

    async def _shown(self, tenant: str, prompt_id: str, version: str | None) -> dict[str, Any]:
        details, activations = await self._book.history(tenant, prompt_id)
        active = activations[-1].version if activations else None
        if version is None:
            versions = [_version(tenant, prompt_id, each, active, whole=False) for each in details]
            history = [_activation(tenant, prompt_id, each) for each in activations]
            shown = {"object": "prompt", "tenant": tenant, "id": prompt_id, "active": active}
            return {**shown, "versions": versions, "activations": history}
        found = next((each for each in details if each.version == int(version)), None)
        if found is None:
            message = f"The prompt '{prompt_id}' has no version {version}."
            raise NotFoundError(message, "prompt_version_not_found", "version")
        return _version(tenant, prompt_id, found, active, whole=True)

    async def _put(
        self, tenant: str, prompt_id: str, parameters: Mapping[str, str], body: bytes, principal: Principal
    ) -> dict[str, Any]:
        _check_names(parameters, "activate", "author")
        author = None if "author" not in parameters else _author(parameters["author"])
        by = _by(principal, author)
        detail = await self._book.put(tenant, prompt_id, body, by)
        self._record(tenant, prompt_id, detail.version, "stored", by)
        active = None
        if parameters.get("activate", "false").lower() == "true":
            active = detail.version
            await self._activated(tenant, prompt_id, active, by)
        return _version(tenant, prompt_id, detail, active, whole=True)

    async def _activated(self, tenant: str, prompt_id: str, version: int, by: str) -> dict[str, Any]:
        return self._changed(tenant, prompt_id, await self._book.activate(tenant, prompt_id, version, by))

    def _changed(self, tenant: str, prompt_id: str, activation: Activation) -> dict[str, Any]:
        outcome = "activated" if activation.kind == "activate" else "rolled_back"
        self._record(tenant, prompt_id, activation.version, outcome, activation.by)
        return _activation(tenant, prompt_id, activation)

    def _record(self, tenant: str, prompt_id: str, version: int, outcome: str, by: str) -> None:
        change = {"check": "prompt", "version": f"{prompt_id}@{version}", "action": "change", "outcome": outcome}
        self._record_change(tenant, {**change, "reviewer": by})

    async def _rendered(self, tenant: str, prompt_id: str, asked: RenderBody) -> dict[str, Any]:
        template = await self._book.template(tenant, prompt_id, asked.version)
        messages = [
            {"role": each.role, "content": each.content} for each in template.messages(asked.variables, "variables")
        ]
        return {"object": "prompt.rendering", "prompt": template.name, "messages": messages}


def _version(tenant: str, prompt_id: str, detail: VersionDetail, active: int | None, *, whole: bool) -> dict[str, Any]:
    template = detail.template
    shown = {
        "object": "prompt.version",
        "tenant": tenant,
        "id": prompt_id,
        "version": detail.version,
        "active": detail.version == active,
        "created_at": detail.at_ms / 1000,
        "author": detail.by,
        "description": template.description,
    }
    return {**shown, "template": template.model_dump()} if whole else shown


def _activation(tenant: str, prompt_id: str, activation: Activation) -> dict[str, Any]:
    return {
        "object": "prompt.activation",
        "tenant": tenant,
        "id": prompt_id,
        "version": activation.version,
        "kind": activation.kind.value,
        "at": activation.at_ms / 1000,
        "author": activation.by,
    }


def _by(principal: Principal, author: str | None) -> str:
    """Returns who changes something: the id of the key, and the person that the request names."""
    return principal.key_id if author is None else f"{principal.key_id}/{author}"


def _author(name: str) -> str | None:
    return parse_document(Actor, Actor.model_construct(author=name).model_dump_json().encode()).author


def _check_names(parameters: Mapping[str, str], *known: str) -> None:
    """Raises InvalidRequestError for a parameter of the query that is not ``known``."""
    for name in parameters.keys() - set(known):
        shown = name.encode("ascii", "backslashreplace").decode()[:64]
        raise InvalidRequestError(f"There is no parameter '{shown}'.", "unknown_parameter", shown)
