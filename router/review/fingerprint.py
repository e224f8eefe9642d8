"""Fingerprints: keyed hashes by which equal texts are recognised. They reveal nothing of the texts without the key."""

from __future__ import annotations

import hashlib
import hmac
import unicodedata

from safety.api import Origin

ZERO_WIDTH = dict.fromkeys(map(ord, "\u00ad\u200b\u200c\u200d\u2060\ufeff"))
"""Characters without width that editors and web pages leave within a text."""
MAX_ZERO_WIDTH = 8
"""As many of them are ignored. Text with more may have a message spelled out with them, so it is another text."""


def normalised(text: str) -> str:
    """Returns ``text`` without differences that readers ignore or do not see: case, white space and a few zero-width
    characters.

    An approved text passes the checks, so nothing may be ignored that can carry a message of its own: tag characters,
    variation selectors, marks and controls of direction stay.
    """
    stripped = text.translate(ZERO_WIDTH)
    if len(text) - len(stripped) <= MAX_ZERO_WIDTH:
        text = stripped
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def fingerprint(key: bytes, tenant: str, text: str, origin: Origin = Origin.USER) -> str:
    """Returns HMAC-SHA256 of the normalised ``text`` in hexadecimal. Two tenants have different fingerprints for equal
    texts, and so have two origins. Those of users' texts are as they were before origins counted."""
    if origin is not Origin.USER:
        key = hmac.new(key, origin.encode(), hashlib.sha256).digest()
    message = tenant.encode() + b"\0" + normalised(text).encode("utf-8", "surrogatepass")
    return hmac.new(key, message, hashlib.sha256).hexdigest()
