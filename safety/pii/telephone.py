"""Telephone numbers: international ones by their country code, others by their form or by nearby words."""

from __future__ import annotations

import phonenumbers
import regex

from safety.patterns.digits import groups
from safety.patterns.recogniser import NUMBER, START, Candidate, Extent, Recogniser, distance_in_context

MIN_DIGITS, MAX_DIGITS = 7, 15  # ITU-T E.164 allows 15
MIN_UNBROKEN = 8  # digits of a number without separators that only a word before it makes a telephone number

LABELS = r"fax|office|mobile|cell(?:phone)?|phone|telephone|home|work|desk|tel|voicemail|hotline"
PHONE_WORDS = distance_in_context(
    r"tele?ph|tel\b|phone|mobile|cell\b|cellphone|call|fax|sms|texts?\b|message|whats ?app|contact|"
    r"reach.{0,12} (?:at|on)\b|"
    r"dial|ring\b|hot ?line|land ?line|voice ?mail|answering|telefon|handy|rufnummer|portable|m[óo]vil|celular|"
    r"(?:home|work|office|desk|direct|registered|my|his|her|their) (?:number|no\b)|(?:desk|office|work|home)\s?:"
)
OTHER_WORDS = distance_in_context(
    r"(?:account|acct|order|invoice|ticket|tracking|ssn|social security|passport|licen[cs]e|isbn|issn|serial|iban|"
    r"tax|taxes|zip|postal|card|version|case|policy|reference)(?:s|id|ids|no|nr|num|number|code)?(?!\p{L})",
    reach=24,
)
"""Words for other numbers. They are whole words: a taxi, a cardiologist and an accountant have telephones."""
DATE = regex.compile(r"(?:19|20)\d\d[ .\-/]\d{1,2}[ .\-/]\d{1,2}|\d{1,2}[ .\-/]\d{1,2}[ .\-/](?:19|20)\d\d")
ADDRESS = regex.compile(r"\d{1,3}(?:\.\d{1,3}){3}")
NORTH_AMERICAN = regex.compile(
    r"(?:\+?1[ .\-]?|001[ .\-]?)?(?:\([2-9]\d{2}\)[ .\-]?|[2-9]\d{2}[ .\-])[2-9]\d{2}[ .\-]\d{4}"
)
TRUNK_DIGITS = range(9, 13)
TRUNK = regex.compile(r"\(?0[1-9]\d{0,4}\)?(?:[ .\-/]\(?\d{2,7}\)?){1,5}")
SEPARATOR = r"(?:[ .\-/]{1,2}\(?|\)[ .\-/]{0,2}\(?|\()"


def number(candidate: Candidate) -> Extent | None:
    """Accepts the longest run of digit groups with a known country code, a national form, or a word for telephones
    nearby."""
    match = candidate.match
    text, begin = match["number"], 0
    if text.startswith("(") and text.count("(") > text.count(")"):
        begin, text = 1, text[1:]
    for end, digits in reversed(groups(text)):
        if digits < MIN_DIGITS:
            break
        is_last = end == len(text)
        if digits <= MAX_DIGITS and is_number(
            text[:end], candidate.context, labelled=is_last and match["label"] is not None
        ):
            return begin, begin + end + (len(match["extension"] or "") if is_last else 0)
    return None


def is_number(text: str, context: str, *, labelled: bool) -> bool:
    """Returns whether ``text`` is a telephone number. ``context`` is the text before it. ``labelled``: a word for
    telephones follows it."""
    if DATE.fullmatch(text) or ADDRESS.fullmatch(text):
        return False
    if text.startswith(("+", "(+", "00")):
        return international(text)
    return labelled or national(text, context)


def national(text: str, context: str) -> bool:
    """Returns whether ``text`` is a national telephone number, by its form or by words in ``context``, the text before
    it."""
    digits = sum(map(str.isdigit, text))
    separated = digits < len(text)
    if not separated and digits < MIN_UNBROKEN:
        return False
    phone, other = PHONE_WORDS(context), OTHER_WORDS(context)
    if other is not None and (phone is None or other < phone):  # the nearer word says what the number is
        return False
    if phone is not None:
        return True
    return NORTH_AMERICAN.fullmatch(text) is not None or (
        digits in TRUNK_DIGITS and separated and TRUNK.fullmatch(text) is not None
    )


def international(text: str) -> bool:
    """Returns whether ``text`` has a country code and a length that is possible there."""
    normalised = text.replace("(0)", "").lstrip("(")
    if normalised.startswith("00"):
        normalised = "+" + normalised[2:]
    try:
        return phonenumbers.is_possible_number(phonenumbers.parse(normalised))
    except phonenumbers.NumberParseException:
        return False


PHONE = Recogniser(
    kind="PHONE_NUMBER",
    pattern=(
        rf"{START}(?<!\d[.,:/+\-])(?<![$€£¥#])(?P<number>[+(]{{0,2}}\d{{1,15}}+(?:{SEPARATOR}\d{{1,15}}+){{0,7}}"
        r")(?P<extension>\s?(?:x|ext\.?|extension)\s?\d{1,6}+)?(?![\d%°€]|[.,:]\d|\p{L})"
        rf"(?:[ \-,\\(]{{1,3}}(?P<label>(?i:{LABELS}))\b)?"
    ),
    max_length=192,
    boundary=NUMBER,
    gate=r"[+(]{0,2}(?:\d(?:[ .\-/()]{0,4}\d){6}|(?:\d(?:[ .\-/()]{0,4}\d){0,5}[ .\-/()]{0,4})?\Z)",
    specificity=10,
    validate=number,
)
