"""``MemoryPromptStore``: prompt templates in the memory of one process, for a single router and for tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from router.ports.prompt_store import (
    MAX_ACTIVATIONS,
    MAX_PROMPTS,
    MAX_VERSIONS,
    Activation,
    PromptStoreFullError,
    PromptSummary,
    StoredVersion,
)
from router.ports.state_store import StateUnavailableError


@dataclass(slots=True)
class _Prompt:
    """A prompt. Version n is at the place n - 1."""

    documents: list[str] = field(default_factory=list)
    activations: list[Activation] = field(default_factory=list)


class MemoryPromptStore:
    """Implements ``PromptStore``. Methods do not wait, so each is atomic among the tasks of one event loop."""

    def __init__(self) -> None:
        self._closed = False
        self._prompts: dict[tuple[str, str], _Prompt] = {}  # by tenant and id

    async def start(self) -> None:
        self._closed = False

    async def close(self) -> None:
        self._closed = True

    async def version(self, tenant: str, prompt_id: str, version: int) -> StoredVersion | None:
        documents = self._of(tenant, prompt_id).documents
        return StoredVersion(version, documents[version - 1]) if 1 <= version <= len(documents) else None

    async def active(self, tenant: str, prompt_id: str) -> StoredVersion | None:
        activations = self._of(tenant, prompt_id).activations
        return await self.version(tenant, prompt_id, activations[-1].version) if activations else None

    async def add(self, tenant: str, prompt_id: str, document: str) -> int:
        prompt = self._of(tenant, prompt_id)
        if len(prompt.documents) >= MAX_VERSIONS:
            raise PromptStoreFullError(f"the prompt has {MAX_VERSIONS} versions")
        if not prompt.documents and sum(name == tenant for name, _ in self._prompts) >= MAX_PROMPTS:
            raise PromptStoreFullError(f"the tenant has {MAX_PROMPTS} prompts")
        self._prompts[tenant, prompt_id] = prompt
        prompt.documents.append(document)
        return len(prompt.documents)

    async def activate(self, tenant: str, prompt_id: str, activation: Activation) -> bool:
        prompt = self._of(tenant, prompt_id)
        if not 1 <= activation.version <= len(prompt.documents):
            return False
        prompt.activations = [*prompt.activations, activation][-MAX_ACTIVATIONS:]
        return True

    async def versions(self, tenant: str, prompt_id: str) -> Sequence[StoredVersion]:
        return [StoredVersion(n, each) for n, each in enumerate(self._of(tenant, prompt_id).documents, 1)]

    async def activations(self, tenant: str, prompt_id: str) -> Sequence[Activation]:
        return list(self._of(tenant, prompt_id).activations)

    async def prompts(self, tenant: str | None = None) -> Sequence[PromptSummary]:
        self._check_open()
        return [
            PromptSummary(
                owner,
                prompt_id,
                prompt.activations[-1].version if prompt.activations else None,
                len(prompt.documents),
            )
            for (owner, prompt_id), prompt in sorted(self._prompts.items())
            if tenant in (None, owner)
        ]

    def _of(self, tenant: str, prompt_id: str) -> _Prompt:
        """Returns a prompt, a new one if there is none. Raises StateUnavailableError after ``close``."""
        self._check_open()
        return self._prompts.get((tenant, prompt_id)) or _Prompt()

    def _check_open(self) -> None:
        if self._closed:
            raise StateUnavailableError("the store is closed")
