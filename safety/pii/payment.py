"""Account and card numbers, each with the check that its standard defines."""

from __future__ import annotations

import re
from functools import cache
from itertools import islice

import regex
from stdnum import bitcoin, iban, numdb

from safety.patterns.digits import groups
from safety.patterns.recogniser import NUMBER, START, Candidate, Extent, Recogniser, in_context, whole

CARD_WORDS = in_context(
    r"cards?|credit|debit|visa|master ?card|maestro|amex|american express|cc\b|pan\b|karte|carte|tarjeta"
)
ISSUED = regex.compile(
    r"4\d{15}|5[1-5]\d{14}|2(?:2[2-9]|[3-6]\d|7[01])\d{13}|3[47]\d{13}|35\d{14}|6(?:011|5\d\d|4[4-9]\d)\d{12}"
)
"""The issuers' prefixes and lengths (ISO/IEC 7812) that, with the check digit, need no word beside them."""

BASE58 = "[1-9A-HJ-NP-Za-km-z]"
MIN_CARD = 12  # digits
IBAN_REGISTRY = numdb.get("iban")
SEPARATORS = str.maketrans("", "", " .-_")
SINGLE = bytes(max(0, code - ord("0")) for code in range(256))  # the value of each ASCII digit
DOUBLED = bytes(sum(divmod(2 * digit, 10)) if digit < 10 else 0 for digit in SINGLE)  # its sum of digits, doubled


def compact(text: str) -> str:
    """Returns only the letters and digits of ``text``."""
    return text.translate(SEPARATORS)


def passes_luhn(number: str) -> bool:
    """Returns whether the last of the ASCII digits is the check digit of the others (ISO/IEC 7812-1)."""
    digits = number[::-1].encode()
    return (sum(digits[::2].translate(SINGLE)) + sum(digits[1::2].translate(DOUBLED))) % 10 == 0


def card(candidate: Candidate) -> Extent | None:
    """Accepts the longest run of groups whose check digit is right."""
    text, number, beside = candidate.text, compact(candidate.text), None
    for end, count in reversed(groups(text)):
        if count < MIN_CARD:
            break
        if not passes_luhn(number[:count]) or not number[:count].strip("0"):
            continue
        if ISSUED.fullmatch(number, 0, count):
            return 0, end
        beside = CARD_WORDS(candidate.context) if beside is None else beside
        if beside:
            return 0, end
    return None


@cache
def iban_length(country: str) -> int | None:
    """Returns the number of characters of an IBAN of ``country``, by the registry of ISO 13616; None for an unknown
    one."""
    form = IBAN_REGISTRY.info(country)[0][1].get("bban")
    return None if form is None else 4 + sum(map(int, re.findall(r"\d+", form)))


def account(candidate: Candidate) -> Extent | None:
    """Accepts a prefix that is an IBAN of a known country, with right check digits (ISO 7064 mod 97-10)."""
    text = candidate.text.upper()
    length = iban_length(text[:2])
    letters = compact(text)
    if length is None or len(letters) < length or not iban.is_valid(letters[:length]):
        return None
    ends = (index + 1 for index, character in enumerate(text) if character.isalnum())
    return 0, next(islice(ends, length - 1, None))


def bitcoin_address(candidate: Candidate) -> Extent | None:
    """Accepts an address whose checksum (Base58Check, or Bech32 by BIP 173) is right."""
    return whole(candidate) if bitcoin.is_valid(candidate.text) else None


CREDIT_CARD = Recogniser(
    kind="CREDIT_CARD",
    pattern=r"(?<![\d])(?<!\d[.,])\d(?:[ .\-_]{0,2}\d){11,18}(?!\d)",
    max_length=60,
    boundary=NUMBER,
    gate=r"\d(?:[ .\-_]{0,2}\d){11}|\d(?:[ .\-_]{0,2}\d){0,10}[ .\-_]{0,2}\Z",
    specificity=60,
    validate=card,
)
IBAN = Recogniser(
    kind="IBAN_CODE",
    pattern=(
        rf"{START}(?:[A-Z]{{2}}\d{{2}}(?:[ \-]?[A-Z0-9]){{11,30}}|[A-Za-z]{{2}}\d{{2}}[A-Za-z0-9]{{11,30}}"
        r"|[A-Za-z]{2}\d{2}(?:[ \-]?[A-Za-z0-9]{4}){2,7}(?:[ \-]?[A-Za-z0-9]{1,3})?)"
    ),
    max_length=72,
    gate=r"[A-Za-z](?:\Z|[A-Za-z](?:\Z|\d(?:\Z|\d)))",
    specificity=70,
    validate=account,
)
BITCOIN = Recogniser(
    kind="CRYPTO",
    pattern=rf"{START}(?:[13]{BASE58}{{25,34}}|(?i:bc1)[0-9A-Za-z]{{8,87}})(?!\w)",
    max_length=96,
    gate=rf"(?:[13](?:{BASE58}{{25}}|{BASE58}{{0,24}}\Z)|[bB](?:\Z|[cC](?:\Z|1)))",
    specificity=50,
    validate=bitcoin_address,
)
