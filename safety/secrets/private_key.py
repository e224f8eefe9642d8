"""Recognises private keys of many lines: from the first line to the last, or to the end of the text."""

from __future__ import annotations

from safety.patterns.recogniser import MAX_MORE, Recogniser

BREAK = r"(?:\\[nr]|[^A-Za-z0-9])"  # also a line break that is escaped
LAST_PEM_LINE = r"-----END [A-Z0-9 ]{1,40}-----"
LAST_PUTTY_LINE = r"Private-MAC: [0-9a-f]{40,64}"


def until(last_line: str) -> str:
    """Returns the pattern (``Recogniser.more``) of the next part of a key that ends with ``last_line``."""
    return rf"(?s:(?<!{last_line})(?:.{{0,{MAX_MORE}}}?{last_line}|.{{1,{MAX_MORE}}}))"


PEM = Recogniser(
    kind="PRIVATE_KEY",
    pattern=(
        r"-----BEGIN (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----"
        rf"(?={BREAK}{{0,16}}(?:[A-Za-z0-9+/=]{{16}}|Proc-Type|Version|Comment|Hash))"
    ),
    max_length=160,
    boundary=r"(?<!-)",
    gate=r"-(?:\Z|-(?:\Z|-(?:\Z|-)))",
    specificity=95,
    more=until(LAST_PEM_LINE),
)
"""RFC 7468 and RFC 4880. A first line without a key after it, as in a program, is none."""

PUTTY = Recogniser(
    kind="PRIVATE_KEY",
    pattern=r"PuTTY-User-Key-File-[123]:(?=\s{0,3}[a-z])",
    max_length=32,
    boundary="",
    gate=r"P(?:\Z|u(?:\Z|T))",
    specificity=95,
    more=until(LAST_PUTTY_LINE),
)

PRIVATE_KEYS = (PEM, PUTTY)
