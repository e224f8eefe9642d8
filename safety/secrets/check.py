"""The check of passages for secrets."""

from __future__ import annotations

from collections.abc import Collection

from safety.api import Action
from safety.patterns.check import PatternCheck
from safety.secrets.kinds import KINDS, VERSION, recognisers_of


class SecretCheck(PatternCheck):
    """A ``Check`` of secrets. Raises ValueError for an unknown kind."""

    def __init__(self, action: Action = Action.REDACT, kinds: Collection[str] = KINDS) -> None:
        super().__init__(
            name="secrets", version=VERSION, category="secrets", recognisers=recognisers_of(kinds), action=action
        )
