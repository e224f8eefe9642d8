"""``TextLog``: the port to the log of prompts and answers, which has those of tenants that have asked for it.

No other port may be given a text for a log: what takes texts here redacts them before it writes anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class LoggedText:
    """A text of a request or of its answers, not yet redacted. ``field`` is its path, such as ``messages[0].content``
    or ``choices[0].text``. ``origin`` is who wrote it: that of a passage, such as ``user``, or ``model``."""

    field: str
    origin: str
    text: str


@dataclass(frozen=True, slots=True)
class RequestTexts:
    """The texts of one request that has ended, not yet redacted.

    ``id`` is that of its ledger entry. ``started_at`` is in seconds since the epoch. ``outcome`` is as in the ledger.
    ``finish_reasons`` are those of the choices that have ended. ``answers`` has what was given to the client.
    ``truncated``: some text is cut off or left out.
    """

    id: str
    request_id: str
    tenant: str
    endpoint: str
    tier: str
    started_at: float
    outcome: str
    finish_reasons: Sequence[str]
    prompt: Sequence[LoggedText]
    answers: Sequence[LoggedText]
    truncated: bool


class TextLog(Protocol):
    """The log of texts of one router. ``max_text`` is the number of characters of a text that it takes at most."""

    @property
    def max_text(self) -> int: ...

    def offer(self, texts: RequestTexts) -> None:
        """Takes the texts of a request, to be redacted and written later. Returns at once and raises nothing; what
        finds no room is lost."""
        ...

    def start(self) -> None:
        """Begins to write. Raises OSError if it cannot."""
        ...

    def close(self) -> None:
        """Writes what was taken, for a few seconds at most, and ends. It blocks."""
        ...
