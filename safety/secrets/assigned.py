"""Recognises values that code or configuration assigns to a name such as ``api_key``, if they look random."""

from __future__ import annotations

import regex
from detect_secrets.plugins.high_entropy_strings import Base64HighEntropyString, HexHighEntropyString

from safety.patterns.recogniser import Candidate, Extent, Recogniser
from safety.secrets.bounded_pattern import gate_of

NAMES = (
    r"api_?key|apikey|api-key|secret|token|passwd|password|passphrase|pwd|access_?key|access-key|auth_?key|"
    r"credential|private_?key|encryption_?key|signing_?key|client_?key"
)
PASSWORD = regex.compile(r"passw|pwd|passphrase", regex.IGNORECASE)
HEX = regex.compile(r"[0-9a-fA-F]+")
BASE64 = regex.compile(r"[A-Za-z0-9+/=_\-]+")
CLASSES = tuple(map(regex.compile, (r"[a-z]", r"[A-Z]", r"\d", r"[^A-Za-z\d]")))
PLACEHOLDER = regex.compile(r"example|placeholder|changeme|your|dummy|xxxx|\*\*\*|\.\.\.|[{}$<>()]", regex.IGNORECASE)

HEX_ENTROPY = HexHighEntropyString()
BASE64_ENTROPY = Base64HighEntropyString(limit=4.0)
"""Lower than the 4.5 bits per character of its default, which is for strings without a name: 20 random characters have
4.0 to 4.3."""

MIN_RANDOM = 20  # characters
MIN_PASSWORD_CLASSES = 3  # of lower case, upper case, digits and signs


def random_value(candidate: Candidate) -> Extent | None:
    """Accepts a value of high entropy; for a password in quotes also one with several classes of characters."""
    match = candidate.match
    value = match["quoted"] or match["bare"]
    group = "quoted" if match["quoted"] else "bare"
    if PLACEHOLDER.search(value):
        return None
    if is_random(value) or (group == "quoted" and PASSWORD.search(match["name"]) and is_mixed(value)):
        return match.start(group) - match.start(), match.end(group) - match.start()
    return None


def is_random(value: str) -> bool:
    """Returns whether the entropy of ``value`` is above the limits of detect-secrets' detectors."""
    if len(value) < MIN_RANDOM or not any(map(str.isdigit, value)):
        return False
    if HEX.fullmatch(value):
        return above_limit(HEX_ENTROPY, value)
    return BASE64.fullmatch(value) is not None and above_limit(BASE64_ENTROPY, value)


def above_limit(detector: HexHighEntropyString | Base64HighEntropyString, value: str) -> bool:
    """Returns whether the entropy is higher than the detector's limit."""
    return bool(detector.calculate_shannon_entropy(value) > detector.entropy_limit)


def is_mixed(value: str) -> bool:
    """Returns whether ``value`` has characters of several classes, such as letters and digits."""
    return sum(pattern.search(value) is not None for pattern in CLASSES) >= MIN_PASSWORD_CLASSES


PATTERN = (
    rf"(?P<name>(?i:{NAMES})[\w\-]{{0,16}})[\"'\]]{{0,2}}\s{{0,2}}(?::=|=>|={{1,3}}|:)\s{{0,2}}"
    r"(?:[\"'`](?P<quoted>[^\s\"'`]{8,200})[\"'`]?|(?P<bare>[A-Za-z0-9+/=_\-]{20,200})(?![\w.(\[]))"
)

ASSIGNED = Recogniser(
    kind="SECRET",
    pattern=PATTERN,
    max_length=272,
    boundary="",
    gate=gate_of(PATTERN),
    specificity=40,
    validate=random_value,
)
