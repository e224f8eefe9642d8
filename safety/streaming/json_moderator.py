"""``JsonModerator``: moderates the arguments of a tool call, which are JSON, by their readable text."""

from __future__ import annotations

from safety.api import Inspection, Release, TextModerator
from safety.streaming.json_text import JsonText


class JsonModerator:
    """Moderates JSON that arrives in pieces. Implements ``TextModerator``; the offsets of its releases count raw
    characters. ``inner`` moderates the readable text, whose characters the offsets in inspections and verdicts count.
    After a halt the JSON is cut off."""

    def __init__(self, inner: TextModerator) -> None:
        self._inner = inner
        self._json = JsonText()

    @property
    def halted(self) -> bool:
        """Whether a verdict has ended the text."""
        return self._inner.halted

    def push(self, piece: str, *, final: bool = False) -> Release:
        """Takes the next piece of the JSON. ``final``: no piece follows."""
        return self._written(self._inner.push(self._json.push(piece, final=final), final=final))

    def resume(self) -> Release:
        """Returns the JSON that finished checks have released since the last call."""
        return self._written(self._inner.resume())

    async def close(self) -> Inspection:
        """Cancels the running check, and returns the record of the text."""
        return await self._inner.close()

    def _written(self, release: Release) -> Release:
        text, replaced = self._json.write(release.end, release.replaced)
        return Release(text, self._json.written, replaced, release.halt, release.done)
