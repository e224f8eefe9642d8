"""What a word, a sentence and a paragraph are."""

from __future__ import annotations

import re

WORD = re.compile(r"\w+")

# Marks that end a sentence wherever they stand, and those that do only before white space or the end of the text.
END = re.compile(r"(?:[。！？｡।॥]+|[.!?…؟۔]+[\"'”’»)\]*_]*(?=\s|$))")
SHORT_FORMS = (
    "mr mrs ms dr prof rev hon st jr sr vs etc eg ie e.g i.e cf approx dept est fig inc ltd co no vol p pp "
    "a.m p.m u.s u.k u.n p.s p.p.s jan feb mar apr jun jul aug sep sept oct nov dec"
)
ABBREVIATIONS = frozenset(SHORT_FORMS.split())
BEFORE = re.compile(r"[\w.]*$")
BLANK_LINES = re.compile(r"\n[^\S\n]*\n\s*")


def words(text: str) -> list[str]:
    """Runs of letters, digits and underscores: "don't" is two words and "well-known" as well, "3.5" is two."""
    return WORD.findall(text)


def sentences(text: str) -> int:
    """Number of sentences: stretches with a word in them, each up to a mark that ends it or the end of the text.

    ``.``, ``!``, ``?`` and their like end a sentence before white space, with the quotation marks and brackets that
    close it. A full stop does not where it follows an abbreviation (``ABBREVIATIONS``), an initial ("J. Smith") or the
    number of a list ("1. Eggs"), nor where the next letter is small. A line break alone ends nothing: a list without
    full stops is one sentence.
    """
    count = start = 0
    for end in END.finditer(text):
        if WORD.search(text, start, end.start()) and not _goes_on(text, end):
            count += 1
            start = end.end()
    return count + (WORD.search(text, start) is not None)


def paragraphs(text: str) -> list[str]:
    """Parts of the text between blank lines."""
    return [part for part in BLANK_LINES.split(text.strip()) if part.strip()]


def _goes_on(text: str, end: re.Match[str]) -> bool:
    """Whether the full stop at ``end`` belongs to what is before it. Other marks always end a sentence."""
    if end[0] != ".":
        return False
    following = text[end.end() :].lstrip()
    if following[:1].islower():
        return True
    line = text[text.rfind("\n", 0, end.start()) + 1 : end.start()]
    before = BEFORE.search(line)
    token = before[0] if before is not None else ""
    numbered = token.isdigit() and not line[: -len(token)].strip(" \t*_#>-")
    initial = len(token) == 1 and token.isupper() and token != "I"
    return bool(following) and (token.lower() in ABBREVIATIONS or numbered or initial)
