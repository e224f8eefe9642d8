"""Content codings of request bodies (RFC 9110, 8.4): some clients and proxies compress what they send. Pure."""

from __future__ import annotations

import zlib

from router.errors import InvalidRequestError, PayloadTooLargeError, UnsupportedMediaTypeError

ACCEPTED = "gzip, deflate"
"""The value of the header accept-encoding that tells a client what it may send."""
EITHER_FORMAT = zlib.MAX_WBITS | 32
"""Zlib tells by the first bytes whether they are gzip or its own format, which HTTP calls deflate."""


def coding_of(header: str) -> str:
    """Returns the coding that the header content-encoding names; "": none. Raises UnsupportedMediaTypeError for one
    that the service does not decode, and for several, one over the other."""
    coding = header.strip().lower()
    if coding in ("", "identity"):
        return ""
    if coding in ("gzip", "x-gzip", "deflate"):
        return coding
    message = f"The body of the request has a content-encoding that is not supported. Supported: {ACCEPTED}."
    raise UnsupportedMediaTypeError(message, "unsupported_content_encoding")


def decoded(body: bytes, limit: int) -> bytes:
    """Returns a body in gzip or deflate as it was before. Takes some 20 ms for 4 MiB, and up to 0.3 s of one made
    to be slow, without the interpreter's lock.

    Raises PayloadTooLargeError if it has more than ``limit`` bytes then, none of which beyond the limit are made, and
    InvalidRequestError for a body that is in neither format, is cut off, or goes on after its end.
    """
    decoder = zlib.decompressobj(EITHER_FORMAT)
    try:
        content = decoder.decompress(body, limit + 1)
    except zlib.error:
        raise _malformed() from None
    if len(content) > limit:
        raise PayloadTooLargeError(f"The decoded body of the request exceeds {limit} bytes.", "body_too_large")
    # Further members of a gzip file are refused: each costs a decoder, and a body has room for 200,000 empty ones.
    if not decoder.eof or decoder.unused_data:
        raise _malformed()
    return content


def _malformed() -> InvalidRequestError:
    message = "The body of the request is not what its header content-encoding says."
    return InvalidRequestError(message, "invalid_content_encoding")
