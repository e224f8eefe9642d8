"""Codecs that turn dataclasses into builtins which another release of Manta can decode, and back.

During a rollout, routers and replicas of two releases exchange messages. These consist of ``str``, ``int``, ``float``,
``bool``, ``bytes``, ``None``, ``tuple`` and ``dict`` only, since a pickled class of the project could not be read once
a field is added to it. There are two codecs, which derive their encoding from the fields of the class:

* ``RowCodec``, for answers: a tuple of values in the order of the sender's fields, without trailing defaults. It is
  small and fast. Decoding needs the sender's schema (the names of its fields), which is sent once. A field that only
  the sender has is ignored. A field that only the reader has gets the reader's default.
* ``RecordCodec``, for requests: a dict from names to the values that differ from the defaults. It needs no schema. A
  field that only the sender has is refused, since the reader could not honour it.

Neither sends defaults, so both sides must have the same ones. A release that changes the default or the meaning of a
field must also change ``cluster.lanes.lane_messages.PROTOCOL``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from operator import attrgetter
from types import NoneType, UnionType
from typing import Any, Generic, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

Schema = Mapping[str, tuple[str, ...]]
"""The names of the fields of a row's class and of the dataclasses within it, by the name of the class."""

Row = tuple[Any, ...]
"""A value of a dataclass, as ``RowCodec`` encodes it."""

Record = dict[str, Any]
"""A value of a dataclass, as ``RecordCodec`` encodes it."""

Convert = Callable[[Any], Any]

_PLAIN = (str, int, float, bool, bytes, NoneType)


class VersionMismatchError(Exception):
    """The releases at the two ends of a lane are incompatible, or one of them does not support a field or value that
    the other sends."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class RowCodec(Generic[T]):
    """The codec that encodes values of the dataclass ``kind`` as tuples.

    ``sender`` is the schema of the release that encoded the rows to decode; None: this release. ``schema`` is that of
    this release, for the readers of its rows. Raises VersionMismatchError if the sender lacks a field that has no
    default here, and TypeError for a field whose type cannot be encoded.
    """

    def __init__(self, kind: type[T], sender: Schema | None = None) -> None:
        own = fields(kind)  # type: ignore[arg-type]  # T is a dataclass
        names = tuple(field.name for field in own)
        required = sum(not _has_default(field) for field in own)
        self._kind = kind
        self.schema: Schema = {kind.__name__: names}
        written = names if sender is None else tuple(sender.get(kind.__name__, names))
        if missing := [name for name in names[:required] if name not in written]:
            raise VersionMismatchError(f"{kind.__name__} comes without {', '.join(missing)}.")
        conversions = [self._conversion(hint, sender) for hint in _hints(kind)]

        self._head, self._tail = _getter(names[:required]), _getter(names[required:])
        self._defaults = tuple(_default(field) for field in own[required:])
        self._encoders = [(place, encode) for place, (encode, _) in enumerate(conversions) if encode is not None]
        self._head_is_plain = all(place >= required for place, _ in self._encoders)

        decoders = {name: decode for name, (_, decode) in zip(names, conversions, strict=True)}
        found = [(place, decoders.get(name)) for place, name in enumerate(written)]
        self._decoders = [(place, decode) for place, decode in found if decode is not None]
        # If both sides have the same fields in the same order, up to the shorter list, the values of a row are passed
        # to ``kind`` as positional arguments. Otherwise they are passed by name.
        self._aligned = all(theirs == mine for theirs, mine in zip(written, names, strict=False))
        self._verbatim = min([len(names), *(place for place, _ in self._decoders)]) if self._aligned else 0
        self._written, self._names = written, names

    def encode(self, value: T) -> Row:
        """Returns the fields of ``value`` as a tuple in their order, without trailing defaults."""
        head, tail = self._head(value), self._tail(value)
        if tail == self._defaults:
            return head if self._head_is_plain else _converted(head, self._encoders)
        end = len(tail)
        while tail[end - 1] == self._defaults[end - 1]:
            end -= 1
        return _converted(head + tail[:end], self._encoders)

    def encode_all(self, values: Iterable[T]) -> list[Row]:
        """Returns ``values`` as tuples, in order. It is faster than ``encode`` for each of them."""
        if not self._head_is_plain:
            return [self.encode(value) for value in values]
        head, tail, defaults, encode = self._head, self._tail, self._defaults, self.encode
        return [head(value) if tail(value) == defaults else encode(value) for value in values]

    def decode(self, row: Row) -> T:
        """Returns the value that the sender encoded as ``row``.

        Raises VersionMismatchError for a value that is unknown here, such as a new member of an enum.
        """
        if len(row) <= self._verbatim:
            return self._kind(*row)
        values = _converted(row, self._decoders)
        if self._aligned:
            return self._kind(*values[: len(self._names)])
        known = zip(self._written, values, strict=False)  # trailing defaults are left off
        return self._kind(**{name: value for name, value in known if name in self._names})

    def _conversion(self, hint: Any, sender: Schema | None) -> tuple[Convert | None, Convert | None]:
        """Adds the schemas of nested dataclasses to ``schema``. Returns the encoder and the decoder of a field of type
        ``hint``."""

        def nested(kind: type[Any]) -> tuple[Convert, Convert]:
            codec = RowCodec(kind, sender)
            self.schema = {**codec.schema, **self.schema}
            return codec.encode, codec.decode

        return _conversion(hint, nested)


class RecordCodec(Generic[T]):
    """The codec that encodes values of the dataclass ``kind`` as dicts of the fields that differ from their defaults.

    ``names`` are the names of all fields.
    """

    def __init__(self, kind: type[T]) -> None:
        self._kind = kind
        self._fields = []
        for field, hint in zip(fields(kind), _hints(kind), strict=True):  # type: ignore[arg-type]  # a dataclass
            encode, decode = _conversion(hint, _record_conversion)
            default = _default(field) if _has_default(field) else MISSING
            self._fields.append((field.name, default, encode, decode))
        self._required = {name for name, default, *_ in self._fields if default is MISSING}
        self._decoders = {name: decode for name, _, _, decode in self._fields}
        self.names = frozenset(self._decoders)

    def encode(self, value: T) -> Record:
        """Returns ``value`` as a dict."""
        record = {}
        for name, default, encode, _ in self._fields:
            field = getattr(value, name)
            if default is MISSING or field != default:
                record[name] = field if encode is None or field is None else encode(field)
        return record

    def decode(self, record: Record) -> T:
        """Returns the value that the sender encoded as ``record``.

        Raises VersionMismatchError for a field or a value that is unknown here, and for a required field that is
        missing. Raises what the constructor of ``kind`` raises, for values out of range.
        """
        if unknown := record.keys() - self._decoders.keys():
            raise VersionMismatchError(f"{self._kind.__name__} has no {', '.join(sorted(unknown))} here.")
        if missing := self._required - record.keys():
            raise VersionMismatchError(f"{self._kind.__name__} comes without {', '.join(sorted(missing))}.")
        arguments = {}
        for name, value in record.items():
            convert = self._decoders[name]
            arguments[name] = value if convert is None or value is None else convert(value)
        return self._kind(**arguments)


def _record_conversion(kind: type[Any]) -> tuple[Convert, Convert]:
    codec = RecordCodec(kind)
    return codec.encode, codec.decode


def _conversion(hint: Any, nested: Callable[[type[Any]], tuple[Convert, Convert]]) -> tuple[Any, Any]:
    """Returns the encoder and the decoder for values of type ``hint``. None in their place: no conversion is needed.

    Callers leave values that are None unconverted. ``nested`` returns the pair for a dataclass. Raises TypeError for a
    type that cannot be encoded.
    """
    if hint in _PLAIN:
        return None, None
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return _union(arguments, nested)
    if origin is Literal:
        return None, _checked(arguments)
    if origin is tuple and arguments[1:] == (...,):
        encode, decode = _conversion(arguments[0], nested)
        return _each(encode), _each(decode)
    if origin is tuple and all(each in _PLAIN for each in arguments):
        return None, None
    if origin is not None and issubclass(origin, Mapping) and all(each in _PLAIN for each in arguments):
        return dict, None
    if isinstance(hint, type) and issubclass(hint, Enum):
        return attrgetter("value"), _member(hint)
    if isinstance(hint, type) and is_dataclass(hint):
        return nested(hint)
    raise TypeError(f"{hint} cannot be sent through a lane")


def _union(arguments: tuple[Any, ...], nested: Callable[[type[Any]], tuple[Convert, Convert]]) -> tuple[Any, Any]:
    """Returns the encoder and the decoder for a union, of which only one member may need a conversion.

    Its values are recognised by their type. Raises TypeError for unions where that is impossible.
    """
    members = [(each, *_conversion(each, nested)) for each in arguments if each is not NoneType]
    converted = [member for member in members if member[1] is not None or member[2] is not None]
    if not converted:
        return None, None
    if len(members) == 1:
        return converted[0][1:]
    (kind, encode, decode) = converted[0]
    if len(converted) == 1 and is_dataclass(kind):
        return (
            lambda value: encode(value) if isinstance(value, kind) else value,  # type: ignore[arg-type]  # a class
            lambda value: decode(value) if isinstance(value, dict) else value,
        )
    if len(converted) == 1 and get_origin(kind) is Literal:  # the other members' values are never strings
        return None, lambda value: decode(value) if isinstance(value, str) else value
    raise TypeError(f"the members of {arguments} cannot be distinguished in a lane")


def _each(convert: Convert | None) -> Convert | None:
    return None if convert is None else lambda values: tuple([convert(value) for value in values])


def _checked(allowed: tuple[Any, ...]) -> Convert:
    """Returns a decoder that raises VersionMismatchError for values that are not in ``allowed``."""

    def check(value: Any) -> Any:
        if value not in allowed:
            raise VersionMismatchError(f"{value!r} is unknown here; known are {', '.join(map(repr, allowed))}.")
        return value

    return check


def _member(kind: type[Enum]) -> Convert:
    """Returns the decoder of enum members. It raises VersionMismatchError for an unknown value."""
    members = {member.value: member for member in kind}

    def find(value: Any) -> Enum:
        if value not in members:
            raise VersionMismatchError(f"{kind.__name__} has no {value!r} here.")
        return members[value]

    return find


def _converted(row: Row, converters: Sequence[tuple[int, Convert]]) -> Row:
    """Returns ``row`` with the values at the indices in ``converters`` converted. None stays None."""
    values = list(row)
    for place, convert in converters:
        if place >= len(values):
            break
        if values[place] is not None:
            values[place] = convert(values[place])
    return tuple(values)


def _getter(names: Sequence[str]) -> Callable[[Any], Row]:
    """Returns a function that reads the attributes ``names`` as a tuple. attrgetter gives one only for two or more."""
    if len(names) > 1:
        return attrgetter(*names)
    return lambda value: tuple([getattr(value, name) for name in names])


def _hints(kind: type[Any]) -> list[Any]:
    """Returns the types of the fields of the dataclass ``kind``, in order."""
    hints = get_type_hints(kind, localns={})  # without the class's own names: a field may be named like a type
    return [hints[field.name] for field in fields(kind)]


def _has_default(field: Field[Any]) -> bool:
    return field.default is not MISSING or field.default_factory is not MISSING


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()
