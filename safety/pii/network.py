"""Network addresses: IPv4, IPv6 and MAC."""

from __future__ import annotations

import ipaddress

from safety.patterns.recogniser import NUMBER, START, Candidate, Extent, Recogniser, in_context, whole

FILLED = r"(?:[^\p{L}\d]{1,3}(?:number|no|nr|is|was))?[^\p{L}\d]{0,6}\Z"
"""What may stand between a word for versions and the version. Other words, or a number, mean that it is none."""

VERSION = in_context(
    rf"(?:v|vers?|versions?)(?:{FILLED}|[^\p{{L}}\d]{{1,3}}(?:to|from)\s\Z)|(?:releases?|sections?|builds?){FILLED}|§\s?\Z|"
    r"#{1,6} \[\Z",  # of a changelog
    reach=24,
)
OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"


def ipv4(candidate: Candidate) -> Extent | None:
    """Accepts four octets, unless the word before them marks a version or section number."""
    return None if VERSION(candidate.context) else whole(candidate)


def ipv6(candidate: Candidate) -> Extent | None:
    """Accepts an IPv6 address, unless it may be a Python slice such as ``1::2`` or a C++ name such as ``a::b``."""
    text = candidate.text.rstrip(":.")
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return None
    groups = [group for group in text.split(":") if group]
    sure = any(len(group) >= 3 for group in groups) or len(groups) >= 3
    return (0, len(text)) if sure and any(character.isdigit() for character in text) else None


IPV4 = Recogniser(
    kind="IP_ADDRESS",
    pattern=rf"(?<![\d.])(?<!\d[:/-])(?:{OCTET}\.){{3}}{OCTET}(?!\d|\.\d)",
    max_length=20,
    boundary=NUMBER,
    gate=r"\d{1,3}(?:\.\d|\.?\Z)",
    specificity=40,
    validate=ipv4,
)
IPV6 = Recogniser(
    kind="IP_ADDRESS",
    pattern=(
        rf"{START}(?<![:.])(?:[0-9a-fA-F]{{1,4}}:|::)(?:[0-9a-fA-F]{{0,4}}:){{0,7}}"
        r"(?:[0-9a-fA-F]{1,4}|(?:\d{1,3}\.){3}\d{1,3})?(?![\w:])"
    ),
    max_length=64,
    gate=r"(?:[0-9a-fA-F]{1,4}(?::|\Z)|:(?::|\Z))",
    specificity=40,
    validate=ipv6,
)
MAC = Recogniser(
    kind="MAC_ADDRESS",
    pattern=rf"{START}(?<![:-])[0-9a-fA-F]{{2}}([:-])[0-9a-fA-F]{{2}}(?:\1[0-9a-fA-F]{{2}}){{4}}(?![\w:-])",
    max_length=20,
    gate=r"[0-9a-fA-F](?:\Z|[0-9a-fA-F](?:\Z|[:-](?:\Z|[0-9a-fA-F])))",
    specificity=42,
)
