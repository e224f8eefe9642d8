"""The kinds of personal data that can be found, with Presidio's names."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from safety.patterns.recogniser import Recogniser
from safety.patterns.scanner import PatternScanner
from safety.pii.national import NATIONAL
from safety.pii.network import IPV4, IPV6, MAC
from safety.pii.online import EMAIL, URL
from safety.pii.payment import BITCOIN, CREDIT_CARD, IBAN
from safety.pii.telephone import PHONE

VERSION = "2"  # of the recognisers

RECOGNISERS = (EMAIL, URL, PHONE, CREDIT_CARD, IBAN, BITCOIN, IPV4, IPV6, MAC, *NATIONAL)

KINDS = frozenset(recogniser.kind for recogniser in RECOGNISERS)
DEFAULT_KINDS = KINDS - {"URL"}
"""An address on the web is seldom personal, and answers are full of them."""


def recognisers_of(kinds: Collection[str] = DEFAULT_KINDS) -> Sequence[Recogniser]:
    """Returns the recognisers of ``kinds``. Raises ValueError for an unknown kind."""
    if unknown := set(kinds) - KINDS:
        raise ValueError(
            f"unknown kinds of personal data: {', '.join(sorted(unknown))}; known: {', '.join(sorted(KINDS))}"
        )
    return [recogniser for recogniser in RECOGNISERS if recogniser.kind in kinds]


class PiiScanner(PatternScanner):
    """Finds personal data of ``kinds`` in one text that arrives in pieces. Implements ``StreamScanner``."""

    def __init__(self, kinds: Collection[str] = DEFAULT_KINDS) -> None:
        super().__init__(recognisers_of(kinds))
