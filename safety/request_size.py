"""``SizeCheck``: requests of unusual size, repetition or script."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence

from safety.api import Action, Passage, Verdict
from safety.policy import SizePolicy

MIN_CHARACTERS = 1000  # of a text whose repetition is measured; short texts repeat themselves by chance
MIN_LETTERS = 20  # of a text whose script is judged: a name or a quotation says nothing of the language
SAMPLED = 4096  # letters of a text whose script is looked up
WORDS = 4  # of a sequence that is repeated


class SizeCheck:
    """Checks the sizes of all passages together, and the make of each. Implements ``Check``."""

    name = "sizes"
    version = "1"

    def __init__(self, policy: SizePolicy) -> None:
        self._policy = policy
        self._action = Action.BLOCK if policy.action == "block" else Action.REVIEW

    async def check(self, passages: Sequence[Passage]) -> Sequence[Verdict]:
        policy, found = self._policy, []
        if policy.max_characters is not None:
            place = exceeding(passages, policy.max_characters)
            found += [] if place is None else [self._verdict("size", place)]
        for place, passage in enumerate(passages):
            if policy.max_repetition is not None and repetition(passage.text) > policy.max_repetition:
                found.append(self._verdict("repetition", place))
            if policy.scripts is not None and main_script(passage.text) not in (None, *policy.scripts):
                found.append(self._verdict("script", place))
        return found

    def _verdict(self, category: str, place: int) -> Verdict:
        return Verdict(self.name, self.version, self._action, category, passage=place)


def exceeding(passages: Sequence[Passage], limit: int) -> int | None:
    """Returns the index of the passage with which the characters of all exceed ``limit``; None if they do not."""
    total = 0
    for place, passage in enumerate(passages):
        total += len(passage.text)
        if total > limit:
            return place
    return None


def repetition(text: str) -> float:
    """Returns the share of the sequences of WORDS words that occurred before in ``text``; 0 for a short text.

    A text with few spaces is divided into sequences of characters instead.
    """
    if len(text) < MIN_CHARACTERS:
        return 0.0
    units: Sequence[str] = text.split()
    if len(units) < len(text) // 50:
        units = text
    sequences = [tuple(units[at : at + WORDS]) for at in range(len(units) - WORDS + 1)]
    return 1 - len(set(sequences)) / len(sequences) if sequences else 0.0


def main_script(text: str) -> str | None:
    """Returns the script of most letters, by the first word of their Unicode names, such as LATIN; None for a text of
    few letters. At most SAMPLED letters are looked up, spread over the text."""
    step = max(1, len(text) // SAMPLED)
    letters = [char for char in text[::step] if char.isalpha()]
    if len(letters) * step < MIN_LETTERS:
        return None
    scripts = Counter(unicodedata.name(char, "UNKNOWN").split()[0] for char in letters)
    return scripts.most_common(1)[0][0]
