"""The wire format of protobuf, as far as traces need it. A library makes an object of each field first."""

from __future__ import annotations

from struct import Struct

MAX_ONE_BYTE = 127
MIN_INT64, MAX_INT64 = -(2**63), 2**63 - 1
DOUBLE = Struct("<d")
LENGTHS = tuple(bytes((length,)) for length in range(MAX_ONE_BYTE + 1))


def varint(number: int) -> bytes:
    """Returns an int64, or a length. A negative number takes ten bytes. Raises OverflowError for one that has no place
    in 64 bits."""
    if 0 <= number <= MAX_ONE_BYTE:
        return LENGTHS[number]
    if not MIN_INT64 <= number <= MAX_INT64:
        raise OverflowError("a number has no place in 64 bits")
    left, made = number & 0xFFFF_FFFF_FFFF_FFFF, bytearray()
    while left > MAX_ONE_BYTE:
        made.append(left & MAX_ONE_BYTE | 0x80)
        left >>= 7
    made.append(left)
    return bytes(made)


def field(tag: bytes, body: bytes) -> bytes:
    """Returns a field of variable length: a text, bytes or a message. ``tag`` is its number and wire type 2."""
    length = len(body)
    return tag + (LENGTHS[length] if length <= MAX_ONE_BYTE else varint(length)) + body


def text(value: str) -> bytes:
    """Returns a text in UTF-8, which protobuf demands. Each surrogate becomes a question mark."""
    return value.encode(errors="replace")


def double(number: float) -> bytes:
    """Returns the eight bytes of a double."""
    return DOUBLE.pack(number)
