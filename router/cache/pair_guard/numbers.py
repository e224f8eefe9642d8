"""Numbers: amounts, years, versions, times of day."""

from __future__ import annotations

import re
from collections import Counter
from typing import Final

from router.cache.pair_guard.parsed_question import ParsedQuestion

NUMBER: Final = re.compile(
    r"(?:(?<![\w)\]\d.])(-|−|minus |negative )|(?<![\w.]))v?(\d+(?:[.,:]\d+)*)(k|m|st|nd|rd|th|%|[a-z]{1,3})?(?!\w)",
    re.IGNORECASE,
)
"""A sign belongs to a number if it does not follow an operand: "3-5" and "covid-19" have none."""

HALF_DAY: Final = re.compile(r"\d\s?([ap])\.?m\b", re.IGNORECASE)
UP_TO_NINETEEN: Final = """
    two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen
    nineteen
"""
TENS: Final = "twenty thirty forty fifty sixty seventy eighty ninety"
WORDS: Final = {
    **{word: str(number) for number, word in enumerate(UP_TO_NINETEEN.split(), start=2)},
    **{word: str(10 * number) for number, word in enumerate(TENS.split(), start=2)},
    "hundred": "100",
    "thousand": "1000",
    "dozen": "12",
    "half": "0.5",
    "twice": "2",
    "double": "2",
    "triple": "3",
}
THOUSANDS: Final = re.compile(r"\d{1,3}(?:,\d{2,3})+")


def numbers(text: ParsedQuestion) -> Counter[str]:
    """Returns the numbers of a question in one spelling: "1,000", "1k" and "1000" are one; 3.1 and 3.10 are two,
    as 5 and -5."""
    found = [("-" if match[1] else "") + value(match[2], match[3] or "") for match in NUMBER.finditer(text.text)]
    return Counter([*found, *(WORDS[word] for word in text.words if word in WORDS)])


def value(digits: str, suffix: str) -> str:
    """Returns the number of ``digits`` and ``suffix``, such as "1" and "k", in one spelling."""
    if THOUSANDS.fullmatch(digits):
        digits = digits.replace(",", "")
    if suffix.lower() == "k" and digits.isdigit():
        return digits + "000"
    return digits.lstrip("0") or "0"


def numbers_differ(one: ParsedQuestion, other: ParsedQuestion) -> bool:
    """Returns whether each question has a number that the other does not have."""
    first, second = numbers(one), numbers(other)
    return bool(first - second) and bool(second - first)


def half_days(text: ParsedQuestion) -> frozenset[str]:
    """Returns the halves of the day in which the times of a question are: "a" for a.m., "p" for p.m."""
    return frozenset(match[1].lower() for match in HALF_DAY.finditer(text.text))


def half_days_differ(one: ParsedQuestion, other: ParsedQuestion) -> bool:
    """Returns whether each question has times in a half of the day in which the other has none."""
    first, second = half_days(one), half_days(other)
    return bool(first - second) and bool(second - first)
