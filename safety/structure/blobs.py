"""Decodes texts that are encoded as bytes or code points: base64, base32, hex, binary, decimal, escapes, URL. Pure.

Whether a run encodes a text is decided by the decoded result: images, hashes, UUIDs and identifiers decode to noise.
Every regular expression begins with a literal class and has bounded parts. No condition at its end can refuse a long
run, which would then be read in vain from each of its characters. So the time is linear in the text.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Callable, Iterator
from urllib.parse import unquote_to_bytes

from safety.structure.decoded import Decoded, Encoding
from safety.structure.readable import MAX_BYTES, is_readable, readable_text

_BASE64 = re.compile(r"[A-Za-z0-9+/]{16,}(?:\r?\n[A-Za-z0-9+/]{2,})*={0,2}|[A-Za-z0-9_-]{16,}={0,2}")
_BASE32 = re.compile(r"[A-Z2-7]{16,}={0,6}")
_HEX = re.compile(r"(?:0x|\\x)?[0-9a-fA-F]{2}(?:[\s,:-]{0,3}(?:0x|\\x)?[0-9a-fA-F]{2}){7,}")
_HEX_MARKS = re.compile(r"0x|\\x|[\s,:-]")
_BINARY = re.compile(r"[01]{8}(?:[\s,]{0,2}[01]{8}){5,}")
_DECIMAL = re.compile(r"(?<!\d)\d{2,3}(?:[\s,;]{1,3}\d{2,3}){7,}(?!\d)")
_ESCAPE = r"(?:\\x[0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\u\{[0-9a-fA-F]{1,6}\}|&#\d{2,7};|&#[xX][0-9a-fA-F]{2,6};)"
_ESCAPES = re.compile(_ESCAPE + "(?: ?" + _ESCAPE + "){5,}")
_ESCAPE_CODE = re.compile(r"\\[xu]\{?([0-9a-fA-F]{1,6})\}?")
_QUOTED_PRINTABLE = re.compile(r"(?:=[0-9A-F]{2}){6,}")
_MORSE = re.compile(r"(?<![.\-/])[.\-]{1,5}(?:[ /|]{1,3}[.\-]{1,5}){7,}")
_MORSE_SIGNS = """
.- -... -.-. -.. . ..-. --. .... .. .--- -.- .-.. -- -. --- .--. --.- .-. ... - ..- ...- .-- -..- -.-- --..
"""
_MORSE_LETTERS = dict(zip(_MORSE_SIGNS.split(), "abcdefghijklmnopqrstuvwxyz", strict=True))
_URL = re.compile(r"(?:%[0-9a-fA-F]{2}[\w.~+-]{0,32}){3,}")


def decode_blobs(text: str) -> Iterator[Decoded]:
    """Yields the texts that are encoded in ``text`` as bytes or code points, one encoding after the other."""
    for pattern, encoding, decode in _DECODERS:
        for match in pattern.finditer(text):
            decoded = decode(match[0])
            if decoded:
                yield Decoded(decoded, match.start(), match.end(), (encoding,))


def _base64(run: str) -> str:
    """Any of four alignments, since letters may stand right before; then the first line alone."""
    if "\n" in run:
        return _base64(run.replace("\r", "").replace("\n", "")) or _base64(run.partition("\n")[0])
    run = run.rstrip("=").replace("-", "+").replace("_", "/")[: MAX_BYTES * 4 // 3]
    for start in range(4):
        size = len(run) - start
        if size % 4 == 1:
            size -= 1
        part = run[start : start + size]
        decoded = readable_text(base64.b64decode(part + "=" * (-size % 4)))
        if decoded:
            return decoded
    return ""


def _base32(run: str) -> str:
    run = run.rstrip("=")[: MAX_BYTES * 8 // 5]
    run = run[: len(run) - (len(run) % 8 in (1, 3, 6))]
    return readable_text(base64.b32decode(run + "=" * (-len(run) % 8)))


def _hex(run: str) -> str:
    digits = _HEX_MARKS.sub("", run[: 8 * MAX_BYTES])
    return readable_text(bytes.fromhex(digits))


def _binary(run: str) -> str:
    return readable_text(bytes(int(byte, 2) for byte in re.findall("[01]{8}", run[: 10 * MAX_BYTES])))


def _decimal(run: str) -> str:
    codes = [int(code) for code in re.findall(r"\d+", run[: 6 * MAX_BYTES])]
    text = "".join(map(chr, codes))
    return text if is_readable(text) else ""


def _escapes(run: str) -> str:
    text = html.unescape(_ESCAPE_CODE.sub(lambda match: _char(match[1]), run[: 8 * MAX_BYTES]))
    return text if is_readable(text) else ""


def _char(code: str) -> str:
    number = int(code, 16)
    return chr(number) if number < 0x110000 and not 0xD800 <= number < 0xE000 else "\ufffd"


def _quoted_printable(run: str) -> str:
    return readable_text(bytes.fromhex(run[: 3 * MAX_BYTES].replace("=", "")))


def _morse(run: str) -> str:
    """Letters are apart by a space, words by a stroke or more spaces."""
    words = re.split(r" ?[/|] ?| {2,}", run[: 6 * MAX_BYTES])
    text = " ".join("".join(_MORSE_LETTERS.get(sign, "\ufffd") for sign in word.split()) for word in words)
    return text if is_readable(text) else ""


def _url(run: str) -> str:
    return readable_text(unquote_to_bytes(run[: 3 * MAX_BYTES].replace("+", " ")))


_DECODERS: tuple[tuple[re.Pattern[str], Encoding, Callable[[str], str]], ...] = (
    (_BASE64, Encoding.BASE64, _base64),
    (_BASE32, Encoding.BASE32, _base32),
    (_HEX, Encoding.HEX, _hex),
    (_BINARY, Encoding.BINARY, _binary),
    (_DECIMAL, Encoding.DECIMAL, _decimal),
    (_ESCAPES, Encoding.ESCAPES, _escapes),
    (_URL, Encoding.URL, _url),
    (_QUOTED_PRINTABLE, Encoding.QUOTED_PRINTABLE, _quoted_printable),
    (_MORSE, Encoding.MORSE, _morse),
)
