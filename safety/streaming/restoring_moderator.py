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
    """Moderates as ``inner`` does, then has ``rewriter`` rewrite what is released. Implements ``TextModerator``.

    The checks read the pseudonyms, as the model wrote them: what the client has sent itself is not redacted. A release
    may stand for a pseudonym whose last characters are still to come; its text follows then.
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
        """Takes the next piece."""
        return self._rewritten(self._inner.push(piece, final=final))

    def resume(self) -> Release:
        """Returns what finished checks have released since the last call."""
        return self._rewritten(self._inner.resume())

    async def close(self) -> Inspection:
        """Ends the running check, and returns what was done."""
        return await self._inner.close()

    def _rewritten(self, release: Release) -> Release:
        if self._done:
            return release  # it has no text
        self._done = release.done
        return replace(release, text=self._rewriter.push(release.text, final=release.done))
