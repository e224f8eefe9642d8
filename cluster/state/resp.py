"""RESP2, the protocol of Redis: commands and their answers as bytes. Pure.

See https://redis.io/docs/latest/develop/reference/protocol-spec/.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis.exceptions import BusyLoadingError, InvalidResponse, NoScriptError, ReadOnlyError, RedisError, ResponseError

END = b"\r\n"
ERRORS: dict[bytes, type[RedisError]] = {
    b"NOSCRIPT": NoScriptError,
    b"READONLY": ReadOnlyError,
    b"LOADING": BusyLoadingError,
}
"""The errors that callers tell apart, by their first word. Others are a ResponseError."""


def packed(parts: Sequence[str | int | bytes]) -> bytes:
    """Returns a command in its wire format. Text is encoded as UTF-8."""
    pieces = [b"*%d\r\n" % len(parts)]
    for part in parts:
        encoded = part if isinstance(part, bytes) else str(part).encode()
        pieces.append(b"$%d\r\n%b\r\n" % (len(encoded), encoded))
    return b"".join(pieces)


def answer_at(data: bytes, place: int) -> tuple[Any, int] | None:
    """Returns the answer that begins at the offset ``place``, and the offset of its end; None if ``data`` does not have
    the whole answer.

    An answer is bytes, an integer, None, a list of answers, or a RedisError that the server sent. Raises
    InvalidResponse for malformed bytes.
    """
    end = data.find(END, place)
    if end < 0:
        return None
    kind, text, after = data[place : place + 1], data[place + 1 : end], end + len(END)
    if kind == b"+":
        return text, after
    if kind == b"-":
        return _error(text), after
    number = _number(kind, text)
    if kind == b":":
        return number, after
    if number < 0:
        return None, after
    return _bulk(data, after, number) if kind == b"$" else _list(data, after, number)


def _number(kind: bytes, text: bytes) -> int:
    if kind not in (b":", b"$", b"*"):
        raise InvalidResponse("an answer begins with an unknown byte")
    try:
        return int(text)
    except ValueError:
        raise InvalidResponse("a length or integer in an answer is none") from None


def _bulk(data: bytes, place: int, length: int) -> tuple[bytes, int] | None:
    end = place + length
    return None if len(data) < end + len(END) else (data[place:end], end + len(END))


def _list(data: bytes, place: int, length: int) -> tuple[list[Any], int] | None:
    items = []
    for _ in range(length):
        if (found := answer_at(data, place)) is None:
            return None
        item, place = found
        items.append(item)
    return items, place


def _error(text: bytes) -> RedisError:
    message = text.decode("utf-8", "replace")
    return ERRORS.get(text.partition(b" ")[0], ResponseError)(message)
