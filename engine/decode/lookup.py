"""Guessing what comes next from what came before: prompt lookup decoding (Saxena 2023).

The tokens that followed the last few the last time are guessed to follow again. Guesses are computed together with the
token before them, and kept as far as they are what the sequence would have drawn anyway: its draws are a function of
seed and position, so an answer is the same with guesses and without, token by token.
"""

from __future__ import annotations

from collections.abc import Sequence

LENGTHS = (4, 3, 2)  # tokens that must be alike, the longest first
WARINESS = 0.25  # weight of the newest guess in what guesses are trusted by
LEAST_TRUST = 0.2  # below it only now and then one is tried
PATIENCE = 24  # tokens between those


class PromptLookup:
    """Of one sequence. Reads its tokens as they come."""

    def __init__(self) -> None:
        self._after: dict[tuple[int, ...], int] = {}  # where the last occurrence of some tokens was followed
        self._read = 0
        self._trust = 1.0
        self._tried_at = 0

    def guess(self, tokens: Sequence[int], most: int) -> list[int]:
        """Up to ``most`` tokens that may follow ``tokens``; the fewer, the less the last guesses were worth."""
        self._index(tokens)
        if self._trust < LEAST_TRUST and len(tokens) - self._tried_at < PATIENCE:
            return []
        most = max(1, round(most * self._trust))
        for length in LENGTHS:
            place = self._after.get(tuple(tokens[-length:])) if len(tokens) >= length else None
            if place is not None:
                self._tried_at = len(tokens)
                return list(tokens[place : place + most])
        return []

    def learn(self, guessed: int, right: int) -> None:
        """Of ``guessed`` tokens the first ``right`` were."""
        self._trust += WARINESS * (right / guessed - self._trust)

    def _index(self, tokens: Sequence[int]) -> None:
        """All but the last token: nothing has followed it yet."""
        for end in range(max(self._read, 1), len(tokens)):
            for length in LENGTHS:
                if end >= length:
                    self._after[tuple(tokens[end - length : end])] = end
        self._read = max(self._read, len(tokens))
