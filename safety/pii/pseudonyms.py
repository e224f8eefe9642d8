"""Pseudonyms: words that a model reads in place of personal data. The values are put back into its answer.

A pseudonym is the kind and a number, such as ``EMAIL_ADDRESS_1``: a word that models copy whole, that no tokenizer or
Markdown changes, and that is no valid address or card if it is ever sent to somebody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import count

import regex

from safety.api import Span

PSEUDONYM = regex.compile(r"(?P<kind>[A-Z][A-Z_]*)_(?P<number>\d+)(?!\d)")


class Pseudonymiser:
    """Gives each distinct value of a request one pseudonym.

    ``texts`` are all texts of the request: no word that occurs in them is used as a pseudonym.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._taken = {match[0] for text in texts for match in PSEUDONYM.finditer(text)}
        self._pseudonyms: dict[tuple[str, str], str] = {}  # by kind and value
        self._numbers: dict[str, count[int]] = {}

    @property
    def restored(self) -> Mapping[str, str]:
        """A mapping from each pseudonym to its value."""
        return {pseudonym: value for (_, value), pseudonym in self._pseudonyms.items()}

    def replace(self, text: str, spans: Sequence[Span]) -> tuple[Span, ...]:
        """Returns the spans of ``text`` with pseudonyms as their replacements.

        Adjacent spans are joined into one with the first one's kind: two pseudonyms without a border between them would
        be one word, which would not be turned back.
        """
        return tuple(
            replace(span, replacement=self._pseudonym(span.kind, text[span.start : span.end]))
            for span in _joined(spans)
        )

    def _pseudonym(self, kind: str, value: str) -> str:
        """Returns the pseudonym of a value; a new one for a value that is not known."""
        if (kind, value) not in self._pseudonyms:
            numbers = self._numbers.setdefault(kind, count(1))
            self._pseudonyms[kind, value] = next(
                pseudonym for number in numbers if (pseudonym := f"{kind}_{number}") not in self._taken
            )
        return self._pseudonyms[kind, value]


def _joined(spans: Sequence[Span]) -> list[Span]:
    """Returns ``spans``, which are sorted and do not overlap, with those that touch as one."""
    joined: list[Span] = []
    for span in spans:
        if joined and joined[-1].end == span.start:
            joined[-1] = replace(joined[-1], end=span.end)
        else:
            joined.append(span)
    return joined
