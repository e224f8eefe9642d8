"""``RestoringModerator``: puts the values of pseudonyms back into a text that is released in pieces."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from safety.api import Inspection, Release, TextModerator


class Rewriter(Protocol):
    """Rewrites a text that arrives in pieces, such as ``safety.pii.restorer.Restorer``."""

    def push(self, piece: str, *, final: bool = False) -> str:
        """Returns the rewritten text that may be sent after the next piece. ``final``: it is the last."""
        ...


class RestoringModerator:
    """Moderates as ``inner`` does, and has ``rewriter`` rewrite the released text. Implements ``TextModerator``.

    The checks read the pseudonyms, as the model wrote them, so that values which the client has sent itself are not
    redacted. If a release ends within a pseudonym, the value follows with a later release.
    """

    def __init__(self, inner: TextModerator, rewriter: Rewriter) -> None:
        self._inner = inner
        self._rewriter = rewriter
        self._done = False

    @property
    def halted(self) -> bool:
        """Whether a verdict has ended the text."""
        return self._inner.halted

    def push(self, piece: str, *, final: bool = False) -> Release:
        """Takes the next piece. ``final``: no piece follows."""
        return self._rewritten(self._inner.push(piece, final=final))

    def resume(self) -> Release:
        """Returns the text that finished checks have released since the last call."""
        return self._rewritten(self._inner.resume())

    async def close(self) -> Inspection:
        """Cancels the running check, and returns the record of the text."""
        return await self._inner.close()

    def _rewritten(self, release: Release) -> Release:
        if self._done:
            return release  # it has no text
        self._done = release.done
        return replace(release, text=self._rewriter.push(release.text, final=release.done))
