"""``PromptStore``: the port to the prompt templates that all routers share. Documents are JSON, and the store does not
read them.

``cluster.state.redis_prompt_store`` implements it with Redis; ``router.memory_prompt_store`` in the memory of one
process. One suite of contract tests runs both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

MAX_PROMPTS = 1_000  # of a tenant
MAX_VERSIONS = 1_000  # of a prompt
MAX_ACTIVATIONS = 1_000  # of a prompt that are remembered, the last ones


class PromptStoreFullError(Exception):
    """The tenant has MAX_PROMPTS prompts, or the prompt has MAX_VERSIONS versions. The message is for people."""


class ActivationKind(StrEnum):
    """The operation by which a version became the active one."""

    ACTIVATE = "activate"
    ROLLBACK = "rollback"


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """A version of a prompt. Versions count from 1 and never change. ``document`` is JSON of its template, time and
    author; the store does not read it."""

    version: int
    document: str


@dataclass(frozen=True, slots=True)
class Activation:
    """The activation of a version of a prompt. ``at_ms`` is in milliseconds since the epoch, ``by`` says who did it."""

    version: int
    kind: ActivationKind
    at_ms: int
    by: str


@dataclass(frozen=True, slots=True)
class PromptSummary:
    """A prompt in a list of prompts. ``active`` is the number of the active version, None if there is none. ``latest``
    is the number of the newest version."""

    tenant: str
    id: str
    active: int | None
    latest: int


class PromptStore(Protocol):
    """The prompts of all tenants. Each coroutine raises StateUnavailableError if the store does not answer in time."""

    async def start(self) -> None:
        """Prepares for calls. Called once, on the event loop of all other calls. Does not fail if the store is down."""
        ...

    async def close(self) -> None:
        """Closes all connections. Further calls raise StateUnavailableError."""
        ...

    async def version(self, tenant: str, prompt_id: str, version: int) -> StoredVersion | None:
        """Returns a version of a prompt; None if there is none. It takes one round trip, since requests may wait for
        it."""
        ...

    async def active(self, tenant: str, prompt_id: str) -> StoredVersion | None:
        """Returns the active version of a prompt; None if there is none. Requests may wait for it."""
        ...

    async def add(self, tenant: str, prompt_id: str, document: str) -> int:
        """Stores a new version and returns its number. Two calls never get the same number; a call that failed may
        leave a gap. Raises PromptStoreFullError if the tenant has too many prompts or the prompt too many versions."""
        ...

    async def activate(self, tenant: str, prompt_id: str, activation: Activation) -> bool:
        """Makes a version the active one, and adds ``activation`` to the history. Returns whether the version exists;
        if it does not, nothing changes."""
        ...

    async def versions(self, tenant: str, prompt_id: str) -> Sequence[StoredVersion]:
        """Returns all versions of a prompt, the oldest first."""
        ...

    async def activations(self, tenant: str, prompt_id: str) -> Sequence[Activation]:
        """Returns the last MAX_ACTIVATIONS activations of a prompt, the oldest first."""
        ...

    async def prompts(self, tenant: str | None = None) -> Sequence[PromptSummary]:
        """Returns the prompts of a tenant, or of all, sorted by tenant and id."""
        ...
