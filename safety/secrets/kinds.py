"""The kinds of secrets that can be found."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from importlib.metadata import version

from safety.patterns.recogniser import Recogniser
from safety.patterns.scanner import PatternScanner
from safety.secrets.assigned import ASSIGNED
from safety.secrets.detect_secrets_plugins import plugin_recognisers
from safety.secrets.private_key import PRIVATE_KEYS
from safety.secrets.tokens import TOKENS

VERSION = f"1+detect-secrets-{version('detect-secrets')}"

RECOGNISERS = (*TOKENS, *PRIVATE_KEYS, ASSIGNED, *plugin_recognisers())

KINDS = frozenset(recogniser.kind for recogniser in RECOGNISERS)


def recognisers_of(kinds: Collection[str] = KINDS) -> Sequence[Recogniser]:
    """Returns the recognisers of ``kinds``. Raises ValueError for an unknown kind."""
    if unknown := set(kinds) - KINDS:
        names, known = ", ".join(sorted(unknown)), ", ".join(sorted(KINDS))
        raise ValueError(f"unknown kinds of secrets: {names}; known: {known}")
    return [recogniser for recogniser in RECOGNISERS if recogniser.kind in kinds]


class SecretScanner(PatternScanner):
    """Finds secrets of ``kinds`` in one text that arrives in pieces. Implements ``StreamScanner``."""

    def __init__(self, kinds: Collection[str] = KINDS) -> None:
        super().__init__(recognisers_of(kinds))
