"""``ValueReader``: reads the values of a GGUF header one after the other, with bounds checks."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.gguf.errors import GGUFError

MAX_STRING_BYTES = 16 << 20  # a chat template has some kB

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY, _BOOL = 8, 9, 7
_U64 = struct.Struct("<Q")


class ValueReader:
    """A read position in ``data``, which advances with each value. All methods raise GGUFError, which names ``what``
    was read, if ``data`` ends before the value does."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self.position = 0

    def take(self, count: int, what: str) -> memoryview:
        """Returns the next ``count`` bytes of the file, without a copy. ``what`` names them for errors."""
        if count > len(self._data) - self.position:
            raise GGUFError(f"the file ends within {what}")
        self.position += count
        return self._data[self.position - count : self.position]

    def u32(self, what: str) -> int:
        """Reads an unsigned 32-bit integer."""
        return int(struct.unpack("<I", self.take(4, what))[0])

    def u64(self, what: str) -> int:
        """Reads an unsigned 64-bit integer."""
        return int(struct.unpack("<Q", self.take(8, what))[0])

    def string(self, what: str) -> str:
        """Reads a string: a 64-bit length in bytes, then UTF-8. Raises GGUFError for invalid UTF-8 too."""
        length = self.u64(what)
        if length > MAX_STRING_BYTES:
            raise _too_long(what, length)
        try:
            return str(self.take(length, what), "utf-8")
        except UnicodeDecodeError as error:
            raise GGUFError(f"{what} is not UTF-8: {error.reason} at byte {error.start}") from error

    def value(self, kind: int, what: str) -> Any:
        """Reads a value of the GGUF type number ``kind``: a str, int, float or bool, a list of str, or a NumPy array of
        numbers or bools, which stays mapped from the file. Raises GGUFError for an unknown type too, and for an array
        of arrays, which llama.cpp does not read either."""
        if kind in _SCALARS:
            form = _SCALARS[kind]
            return struct.unpack(form, self.take(struct.calcsize(form), what))[0]
        if kind == _STRING:
            return self.string(what)
        if kind == _ARRAY:
            return self._array(what)
        raise GGUFError(f"{what} has the value type {kind}, which does not exist")

    def _array(self, what: str) -> list[str] | NDArray[Any]:
        kind, count = self.u32(what), self.u64(what)
        if kind in _SCALARS:
            return self._scalars(kind, count, what)
        if kind == _STRING:
            return self._strings(count, what)
        raise GGUFError(f"{what} is an array whose elements have the type {kind}, neither numbers nor strings")

    def _strings(self, count: int, what: str) -> list[str]:
        """All strings of an array in one loop: a vocabulary has 150,000 of them, and as many merges."""
        data, position, end = self._data, self.position, len(self._data)
        if count * 8 > end - position:
            raise GGUFError(f"the file ends within {what}")
        found = []
        try:
            for _ in range(count):
                start = position + 8
                length = _U64.unpack_from(data, position)[0]
                position = start + length
                if position > end:
                    raise GGUFError(f"the file ends within {what}")
                if length > MAX_STRING_BYTES:
                    raise _too_long(what, length)
                found.append(str(data[start:position], "utf-8"))
        except struct.error as error:  # fewer than eight bytes are left
            raise GGUFError(f"the file ends within {what}") from error
        except UnicodeDecodeError as error:
            raise GGUFError(f"{what} holds a string that is not UTF-8: {error.reason}") from error
        self.position = position
        return found

    def _scalars(self, kind: int, count: int, what: str) -> NDArray[Any]:
        """All numbers of an array, as they are in the file: Python's own take 10 to 22 times as much memory."""
        form = np.dtype(_SCALARS[kind])
        numbers = np.frombuffer(self.take(count * form.itemsize, what), np.uint8 if kind == _BOOL else form)
        return numbers != 0 if kind == _BOOL else numbers


def _too_long(what: str, length: int) -> GGUFError:
    return GGUFError(f"{what} has a string of {length} bytes; at most {MAX_STRING_BYTES} are read")
