"""``SizeCheck``: requests of unusual size, and texts in unusual scripts."""

from __future__ import annotations

from collections.abc import Sequence

from safety.api import Action, Passage, Verdict
from safety.check_policies import SizePolicy
from safety.structure.anomalies import scripts

SIZE = "size"
"""The category of a verdict on the characters of all texts together."""
MIN_LETTERS = 20
"""The letters of a text whose script is judged: a name or a quotation says nothing of the language."""


class SizeCheck:
    """Checks the number of characters of all passages together, and the writing system (script, such as LATIN) of each.
    A passage beyond a limit of ``policy`` has a verdict with the policy's action. Implements ``Check``."""

    name = "sizes"
    version = "1"

    def __init__(self, policy: SizePolicy) -> None:
        self._policy = policy
        self._action = Action.BLOCK if policy.action == "block" else Action.REVIEW

    async def check(self, passages: Sequence[Passage]) -> Sequence[Verdict]:
        policy, found = self._policy, []
        if policy.max_characters is not None:
            place = exceeding([each.text for each in passages], policy.max_characters)
            found += [] if place is None else [self._verdict(SIZE, place)]
        for place, passage in enumerate(passages):
            if policy.scripts is not None and main_script(passage.text) not in (None, *policy.scripts):
                found.append(self._verdict("script", place))
        return found

    def _verdict(self, category: str, place: int) -> Verdict:
        return Verdict(self.name, self.version, self._action, category, passage=place)


def is_of_request(verdict: Verdict) -> bool:
    """Returns whether the verdict is on the size of a request. Its passage is only where the limit is reached."""
    return verdict.check == SizeCheck.name and verdict.category == SIZE


def exceeding(texts: Sequence[str], limit: int) -> int | None:
    """Returns the index of the text with which the running total of characters exceeds ``limit``; None if the total
    does not."""
    total = 0
    for place, text in enumerate(texts):
        total += len(text)
        if total > limit:
            return place
    return None


def main_script(text: str) -> str | None:
    """Returns the writing system of most letters, by the first word of their Unicode names, such as LATIN; None for a
    text of few letters."""
    if sum(map(str.isalpha, text[: 4 * MIN_LETTERS])) < MIN_LETTERS and len(text) < 16 * MIN_LETTERS:
        return None
    shares = scripts(text)
    return max(shares, key=lambda script: shares[script], default=None)
