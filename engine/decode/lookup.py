"""Prompt lookup decoding (Saxena 2023): speculative decoding without a draft model (vLLM's ``ngram`` method).

The draft tokens are those that followed the last few tokens when they last occurred. They are verified in the same
forward pass as the token before them, and accepted as long as each is the token that the sequence draws there. Draws
are functions of seed and position; so, where a row's logits do not depend on the rest of the batch, the answer is the
same with and without draft tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy

LENGTHS = (4, 3, 2)  # lengths of n-grams that are looked up, the longest first
WARINESS = 0.25  # weight of the newest verification in the moving average of the acceptance rate
MIN_TRUST = 0.2  # acceptance rate below which draft tokens are proposed only now and then
PATIENCE = 24  # tokens between proposals then


class PromptLookup:
    """Proposes draft tokens for one sequence from an index of its n-grams."""

    def __init__(self) -> None:
        self._after: dict[tuple[int, ...], int] = {}  # position after the last occurrence of each n-gram
        self._common: Mapping[tuple[int, ...], int] = {}  # the same for tokens shared with other choices
        self._read = 0
        self._trust = 1.0
        self._tried_at = 0

    def branch(self) -> PromptLookup:
        """Returns a copy for another choice, which shares the index of the tokens read so far. ``self`` must not have
        branched before unless no token was read since."""
        twin = copy(self)
        if self._after:
            self._common = twin._common = self._after
        self._after, twin._after = {}, {}
        return twin

    def read(self, tokens: Sequence[int]) -> None:
        """Indexes those of ``tokens``, the sequence's tokens so far, that are not indexed yet. The last is left out,
        since no token has followed it."""
        for end in range(max(self._read, 1), len(tokens)):
            for length in LENGTHS:
                if end >= length:
                    self._after[tuple(tokens[end - length : end])] = end
        self._read = max(self._read, len(tokens))

    def propose(self, tokens: Sequence[int], most: int) -> list[int]:
        """Returns up to ``most`` draft tokens after ``tokens``. The lower the recent acceptance rate, the fewer."""
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
        """Records that ``accepted`` of ``proposed`` draft tokens were accepted."""
        self._trust += WARINESS * (accepted / proposed - self._trust)


def _copied(tokens: Sequence[int], place: int, count: int) -> list[int]:
    """Returns ``count`` tokens from ``place`` on. At the end of ``tokens`` it continues with the copied ones, so that a
    repetition goes on."""
    period = len(tokens) - place
    return [tokens[place + at % period] for at in range(count)]
