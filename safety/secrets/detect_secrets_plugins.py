"""Makes recognisers from the patterns of the installed detect-secrets."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator, Sequence
from functools import cache
from inspect import isabstract
from typing import NamedTuple, cast

import detect_secrets.plugins
import regex
from detect_secrets.plugins.base import RegexBasedDetector

from safety.patterns.recogniser import Candidate, Extent, Recogniser
from safety.secrets.bounded_pattern import MAX_LENGTH, bounded, gate_of

OWN = frozenset({"IPPublicDetector", "PrivateKeyDetector", "JwtTokenDetector", "OpenAIDetector"})
"""Detectors that are left out: public addresses are personal data, and the others have recognisers of their own."""

GATES = {
    "MailchimpDetector": (r"(?<![0-9a-z])", r"[0-9a-z]{32}(?:-|\Z)|[0-9a-z]{0,31}\Z"),
    "TelegramBotTokenDetector": (r"(?<!\d)", r"\d{8,10}(?::|\Z)|\d{0,7}\Z"),
}
"""The boundary and the gate of patterns that begin with too common characters."""

MORE = r"(?<=[A-Za-z0-9_+/=\-])[A-Za-z0-9_+/=\-]{1,512}"
"""What follows the shortest token that a pattern finds, and belongs to it."""

NEEDS_DIGIT = frozenset({"ARTIFACTORY_CREDENTIALS"})
SPECIFICITY = 70


def kind_of(secret_type: str) -> str:
    """Returns the name of the kind for a detector's type of secret: ``AWS Access Key`` becomes ``AWS_ACCESS_KEY``."""
    return "_".join(regex.findall(r"[A-Z0-9]+", secret_type.upper()))


def value(candidate: Candidate) -> Extent:
    """Returns the extent of the secret alone, without the text before it, such as a variable name, where the pattern
    has a group for the secret."""
    match, length = candidate.match, len(candidate.text)
    if match.re.groups and match[1] is not None:
        start, end = match.start(1) - match.start(), match.end(1) - match.start()
        if start > 0 and length - end <= 3:
            return start, end
    return 0, length


def value_with_digit(candidate: Candidate) -> Extent | None:
    """Accepts a value that has a digit: without one it is a word."""
    return value(candidate) if any(map(str.isdigit, candidate.text)) else None


class Detector(NamedTuple):
    """A detector of the library: its class name, its type of secret and its patterns."""

    name: str
    secret_type: str
    patterns: Sequence[re.Pattern[str]]


def detectors() -> Iterator[Detector]:
    """Yields the detectors that search by pattern."""
    for module in pkgutil.iter_modules(detect_secrets.plugins.__path__):
        plugin = importlib.import_module(f"detect_secrets.plugins.{module.name}")
        for name, member in vars(plugin).items():
            if not isinstance(member, type) or member.__module__ != plugin.__name__ or name in OWN:
                continue
            if issubclass(member, RegexBasedDetector) and not isabstract(member):
                yield Detector(name, str(member.secret_type), cast(Sequence[re.Pattern[str]], member.denylist))


@cache
def plugin_recognisers() -> tuple[Recogniser, ...]:
    """Returns a recogniser for each pattern of each detector."""
    return tuple(recogniser(detector, pattern) for detector in detectors() for pattern in detector.patterns)


def recogniser(detector: Detector, pattern: re.Pattern[str]) -> Recogniser:
    """Returns the recogniser of one pattern of a detector."""
    kind = kind_of(detector.secret_type)
    safe = bounded(pattern.pattern)
    if pattern.flags & re.IGNORECASE:
        safe = f"(?i:{safe})"
    boundary, gate = GATES.get(detector.name) or ("", gate_of(safe))
    return Recogniser(
        kind=kind,
        pattern=safe,
        max_length=MAX_LENGTH,
        boundary=boundary,
        gate=gate,
        specificity=SPECIFICITY,
        validate=value_with_digit if kind in NEEDS_DIGIT else value,
        more=MORE,
    )
