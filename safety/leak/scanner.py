"""``LeakScanner``: finds runs of the system prompt's words in an answer as it grows.

    run of the prompt's words:    w1 w2 w3 | w4 w5 w6 w7 w8 | w9 w10
                                  lead       found with w8    each found with the next

A run counts as a leak from NGRAM words on. Its first LEAD words may be sent before that is known, so that ordinary
text, which shares single words and short phrases with any prompt, is not held back; the found span begins after them.
"""

from __future__ import annotations

from collections import deque
from functools import cached_property

from safety.api import Scan, Span
from safety.leak.prompt_index import PromptIndex, Run
from safety.leak.words import Word, WordReader
from safety.text.common_words import COMMON_WORDS

NGRAM = 8
"""Words of a run that counts; letters of scripts without spaces count half."""
LEAD = 3
MIN_UNCOMMON = 2
"""Words among the last NGRAM that are not common: a run of common words alone is no sign of the prompt."""
MAX_EXTENT = 1024
"""Characters of the original that NGRAM words may take, and so the most that is held back."""
LEAKED = "SYSTEM_PROMPT"
_WEIGHT = 2 * NGRAM
_LEAD_WEIGHT = 2 * LEAD


class LeakScanner:
    """A StreamScanner of leaks. A run that also occurs in ``user``, the user's texts, is no leak. ``user`` is indexed
    only when a run is found.

    It holds nothing back up to the third word of a run, then at most the last five words or MAX_EXTENT characters. A
    long run is reported in parts, as adjacent spans.
    """

    def __init__(self, prompt: PromptIndex, user: str = "") -> None:
        self._reader = WordReader()
        self._prompt = Run(prompt)
        self._user = user
        self._last: deque[Word] = deque(maxlen=_WEIGHT)
        self._length = 0
        self._reported = 0

    def push(self, piece: str, *, final: bool = False) -> Scan:
        """Takes the next piece of the text and returns the spans that became certain. ``final``: no piece follows."""
        self._length += len(piece)
        found = [span for word in self._reader.push(piece, final=final) if (span := self._read(word))]
        if final:
            return Scan(tuple(found), self._length)
        return Scan(tuple(found), max(self._reported, self._live(), self._length - MAX_EXTENT))

    def _read(self, word: Word) -> Span | None:
        self._last.append(word)
        self._prompt.read(word.text)
        window = self._tail(_WEIGHT)
        count = len(window)
        if sum(each.weight for each in window) < _WEIGHT or self._prompt.length < count:
            return None
        if word.end - window[0].start > MAX_EXTENT or _uncommon(window) < MIN_UNCOMMON:
            return None
        if self._user and _joined(window) in self._user_words:
            return None
        start = max(self._reported, _behind_lead(window, word.end))
        self._reported = word.end
        return Span(start, word.end, LEAKED)

    @cached_property
    def _user_words(self) -> str:
        return _joined(WordReader().push(self._user, final=True))

    def _tail(self, weight: int) -> list[Word]:
        """The fewest last words that weigh as much; all if they weigh less."""
        tail: list[Word] = []
        for word in reversed(self._last):
            if weight <= 0:
                break
            tail.append(word)
            weight -= word.weight
        return tail[::-1]

    def _live(self) -> int:
        """The offset before which no word is that a later span may begin with."""
        run = self._tail(_WEIGHT)[-self._prompt.length :] if self._prompt.length else []
        if run and self._reported >= run[-1].end:
            return self._reported  # the next span goes on from here
        unfinished = self._length if self._reader.unfinished is None else self._reader.unfinished
        if sum(word.weight for word in run) < _LEAD_WEIGHT:
            return self._length
        return _behind_lead(run, unfinished)


def _behind_lead(words: list[Word], otherwise: int) -> int:
    """Where the first word begins that has LEAD words before it."""
    weight = 0
    for word in words:
        if weight >= _LEAD_WEIGHT:
            return word.start
        weight += word.weight
    return otherwise


def _joined(words: list[Word]) -> str:
    return f" {' '.join(word.text for word in words)} "


def _uncommon(words: list[Word]) -> int:
    return len({word.text for word in words} - COMMON_WORDS)
