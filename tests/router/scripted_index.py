"""A hand-written SemanticIndex: which questions mean the same is scripted."""

from __future__ import annotations

from router.memory_entry_store import MemoryEntryStore
from router.ports.answer_cache import (
    HitFeedback,
    SemanticMatch,
    SemanticQuestion,
    SemanticUnavailableError,
)


class ScriptedIndex:
    """Finds the entries of a store by ``same``. Implements ``SemanticIndex``.

    ``frozen``: it no longer follows the store. ``told`` has all feedback.
    """

    def __init__(self, store: MemoryEntryStore) -> None:
        self._store = store
        self._same: dict[str, tuple[str, float, str]] = {}
        self._ids: dict[tuple[str, str, str], tuple[str, int]] = {}
        self.told: list[HitFeedback] = []
        self.unavailable = False
        self.frozen = False

    def same(self, text: str, question: str, score: float, refused_by: str = "") -> None:
        """From now on ``text`` is taken for ``question``, or refused."""
        self._same[text] = question, score, refused_by

    async def lookup(self, question: SemanticQuestion) -> SemanticMatch | None:
        if self.unavailable:
            raise SemanticUnavailableError("down")
        await self.follow()
        if question.text not in self._same:
            return None
        asked, score, refused_by = self._same[question.text]
        entry_id, created_ms = self._ids.get((question.tenant, question.partition, asked), ("", 0))
        if not entry_id or created_ms < question.min_created_ms:
            return None
        return SemanticMatch(entry_id, score, score, refused_by)

    async def feedback(self, feedback: HitFeedback) -> None:
        if self.unavailable:
            raise SemanticUnavailableError("down")
        self.told.append(feedback)

    async def follow(self) -> None:
        """Reads the entries of the store."""
        if self.frozen:
            return
        async for batch in self._store.entries():
            for entry in batch:
                if entry.semantic:
                    place = entry.tenant, entry.partition, entry.question
                    self._ids[place] = entry.id, entry.created_ms
