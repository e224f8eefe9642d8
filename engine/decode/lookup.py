"""Guessing what comes next from what came before: prompt lookup decoding (Saxena 2023).

The tokens that followed the last few the last time are guessed to follow again. Guesses are computed together with the
token before them, and kept as far as they are what the sequence would have drawn anyway: its draws are a function of
seed and position, so where a row's numbers do not depend on the rows beside it an answer is the same with guesses and
without, token by token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy

LENGTHS = (4, 3, 2)  # tokens that must be alike, the longest first
WARINESS = 0.25  # weight of the newest guess in what guesses are trusted by
MIN_TRUST = 0.2  # below it only now and then one is tried
PATIENCE = 24  # tokens between those


class PromptLookup:
    """Of one sequence. Reads its tokens as they come."""

    def __init__(self) -> None:
        self._after: dict[tuple[int, ...], int] = {}  # where the last occurrence of some tokens was followed
        self._common: Mapping[tuple[int, ...], int] = {}  # the same, read before branches parted
        self._read = 0
        self._trust = 1.0
        self._tried_at = 0

    def branch(self) -> PromptLookup:
        """Another for a sequence that begins with the tokens read so far. For one that has no branches yet."""
        twin = copy(self)
        if self._after:
            self._common = twin._common = self._after
        self._after, twin._after = {}, {}
        return twin

    def read(self, tokens: Sequence[int]) -> None:
        """Takes note of ``tokens``, the sequence's so far: of all but the last, which nothing has followed yet."""
        for end in range(max(self._read, 1), len(tokens)):
            for length in LENGTHS:
                if end >= length:
                    self._after[tuple(tokens[end - length : end])] = end
        self._read = max(self._read, len(tokens))

    def propose(self, tokens: Sequence[int], most: int) -> list[int]:
        """Up to ``most`` tokens that may follow ``tokens``; the fewer, the less the last guesses were worth."""
        self.read(tokens)
        if self._trust < MIN_TRUST and len(tokens) - self._tried_at < PATIENCE:
            return []
        most = max(1, round(most * self._trust))
        for length in LENGTHS:
            tail = tuple(tokens[-length:])
            place = self._after.get(tail, self._common.get(tail)) if len(tokens) >= length else None
            if place is not None:
                self._tried_at = len(tokens)
                return _copied(tokens, place, most)
        return []

    def learn(self, proposed: int, accepted: int) -> None:
        """Of ``guessed`` tokens the first ``right`` were."""
        self._trust += WARINESS * (accepted / proposed - self._trust)


def _copied(tokens: Sequence[int], place: int, count: int) -> list[int]:
    """What follows from ``place`` on, and then what that would be followed by: a repetition goes on for ever."""
    period = len(tokens) - place
    return [tokens[place + at % period] for at in range(count)]
