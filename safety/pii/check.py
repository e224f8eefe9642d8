"""The check of passages for personal data."""

from __future__ import annotations

from collections.abc import Collection

from safety.api import Action
from safety.patterns.check import PatternCheck
from safety.pii.kinds import DEFAULT_KINDS, VERSION, recognisers_of


class PiiCheck(PatternCheck):
    """A ``Check`` of personal data. Raises ValueError for an unknown kind."""

    def __init__(self, action: Action = Action.REDACT, kinds: Collection[str] = DEFAULT_KINDS) -> None:
        super().__init__(name="pii", version=VERSION, category="pii", recognisers=recognisers_of(kinds), action=action)
