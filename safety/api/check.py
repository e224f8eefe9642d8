"""The ports to checks: of whole passages, and of a text that arrives in pieces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from safety.api.passage import Passage
from safety.api.verdict import Span, Verdict


class Check(Protocol):
    """A check of whole passages. It raises no error: a failure is a verdict with ``error``."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    async def check(self, passages: Sequence[Passage]) -> Sequence[Verdict]:
        """Returns a verdict for each passage in which something was found, in the order of the passages. A passage
        without a verdict is allowed."""
        ...


@dataclass(frozen=True, slots=True)
class Scan:
    """The result of a scanner after a piece of text. Offsets count characters from the beginning of the text.

    ``found``: the matches that became certain with this piece, in order. ``settled``: no match that is not yet reported
    can begin before this offset, so that the text before it may be sent.
    """

    found: tuple[Span, ...]
    settled: int


class StreamScanner(Protocol):
    """Finds matches of one kind in one text that arrives in pieces. The spans do not depend on where the text is cut:
    they are those of the whole text."""

    def push(self, piece: str, *, final: bool = False) -> Scan:
        """Reads the next piece. ``final``: it is the last, after which ``settled`` is the length of the text."""
        ...
