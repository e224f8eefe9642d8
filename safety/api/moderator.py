"""``TextModerator``: moderates one text of an answer while it is generated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from safety.api.passage import Origin
from safety.api.verdict import Span, Verdict


@dataclass(frozen=True, slots=True)
class Release:
    """The part of a growing text that may be sent now.

    ``text`` follows the text that was released before, with the replacements of redacted spans. It stands for the
    characters of the original up to ``end``; ``replaced`` are the spans of the original, within that part, that were
    replaced. ``halt`` is the verdict that ends the text here: no more of it may be sent. ``done``: the whole text is
    released, or it was halted; and no check of it is running.
    """

    text: str
    end: int
    replaced: tuple[Span, ...] = ()
    halt: Verdict | None = None
    done: bool = False


@dataclass(frozen=True, slots=True)
class Inspection:
    """A record of the checks of one text of an answer, for the audit log.

    ``characters`` is the number of characters that were generated, ``sent`` the number of those that were released or
    replaced. ``covered`` has, for each check by ``name@version``, the number of characters that it has read without a
    failure.
    """

    origin: Origin
    characters: int
    sent: int
    covered: Mapping[str, int]
    verdicts: tuple[Verdict, ...] = ()


class TextModerator(Protocol):
    """Moderates one text of an answer, which arrives in pieces: the content of a choice, its reasoning, or the
    arguments of one tool call. It belongs to one event loop."""

    @property
    def halted(self) -> bool:
        """Whether a verdict has ended the text. It becomes True before ``notify`` is called."""
        ...

    def push(self, piece: str, *, final: bool = False) -> Release:
        """Takes the next piece, and may start a check beside the stream. ``final``: it is the last piece. After a halt
        pieces are ignored."""
        ...

    def resume(self) -> Release:
        """Returns the text that finished checks have released since the last call. It is called after each ``notify``.

        Raises the unexpected exception of a check, if there was one.
        """
        ...

    async def close(self) -> Inspection:
        """Cancels the running checks, and returns the record of the text. It is called once, however the answer
        ends."""
        ...
