"""Which keywords of a JSON schema structured outputs do not enforce. Pure; needs neither torch nor llguidance.

A schema that is compiled leniently (``Grammar.json_schema(schema, strict=False)``) is followed but for these keywords;
one that is compiled strictly is refused for the first of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

MAX_OPTIONS = 64  # that are compared with each other, unless all are constants
MAX_COMPARED_DEPTH = 16  # of properties that tell options apart

_UNENFORCED = frozenset(
    {
        "$dynamicAnchor",
        "$dynamicRef",
        "$recursiveAnchor",
        "$recursiveRef",
        "contains",
        "dependencies",
        "dependentRequired",
        "dependentSchemas",
        "else",
        "if",
        "maxContains",
        "minContains",
        "not",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
        "uniqueItems",
    }
)
_FORMATS = frozenset(
    {"date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "unknown", "uri", "uuid"}
)
_IN_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
_IN_VALUES = ("$defs", "definitions", "patternProperties", "properties")
_ALONE = ("additionalItems", "additionalProperties", "items")
_UNTYPED = frozenset({"array", "boolean", "null", "number", "object", "string"})


def unenforced_keywords(schema: Mapping[str, Any] | bool) -> list[str]:
    """Sorted, each once; a format is ``format:its-name``. ``oneOf`` is among them where its options are not seen to
    exclude each other: then any of them may be followed. Definitions count whether something refers to them or not."""
    return sorted({keyword for each in _schemas(schema) for keyword in _own(each)})


def _schemas(root: object) -> Iterator[Mapping[str, Any]]:
    """A schema, all within it, and what it refers to within itself; each once."""
    waiting, seen = [root], set[int]()
    while waiting:
        schema = waiting.pop()
        if isinstance(schema, Mapping) and id(schema) not in seen:
            seen.add(id(schema))
            yield schema
            waiting += _parts(schema)
            waiting.append(_resolved(root, schema.get("$ref")))


def _parts(schema: Mapping[str, Any]) -> Iterator[object]:
    """The schemas directly within one."""
    for keyword in _ALONE:
        yield schema.get(keyword)
    for keyword in _IN_LISTS:
        listed = schema.get(keyword)
        yield from listed if isinstance(listed, list) else ()
    for keyword in _IN_VALUES:
        named = schema.get(keyword)
        yield from named.values() if isinstance(named, Mapping) else ()


def _resolved(root: object, reference: object) -> object:
    """What a JSON pointer such as ``#/$defs/a`` stands for; None if there is no such thing."""
    if not (isinstance(reference, str) and reference.startswith("#/")):
        return None
    place = root
    for name in reference[2:].split("/"):
        name = unquote(name).replace("~1", "/").replace("~0", "~")
        place = place.get(name) if isinstance(place, Mapping) else None
    return place


def _own(schema: Mapping[str, Any]) -> Iterator[str]:
    """The keywords of one schema, those within it aside."""
    yield from _UNENFORCED & schema.keys()
    form = schema.get("format")
    if isinstance(form, str) and form not in _FORMATS and "string" in _types(schema):
        yield f"format:{form}"
    options = schema.get("oneOf")
    if isinstance(options, list) and not _exclusive(options):
        yield "oneOf"
    if not _countable(schema):
        yield from {"maxProperties", "minProperties"} & schema.keys()


def _countable(schema: Mapping[str, Any]) -> bool:
    """Whether limits on the number of properties hold: all that are named are required, or one of a closed list is."""
    named, required = schema.get("properties", {}), schema.get("required", [])
    if not (isinstance(named, Mapping) and isinstance(required, list)):
        return True  # no schema: it is refused anyway
    if named.keys() <= set(map(str, required)):
        return True
    least, most = schema.get("minProperties", 0), schema.get("maxProperties")
    few = least in (0, 1, len(required), len(required) + 1) and most in (None, 1, len(required) + 1)
    return few and schema.get("additionalProperties") is False and "patternProperties" not in schema


def _exclusive(options: list[Any]) -> bool:
    """Whether nothing can be valid by two of ``options``, as far as their types and constants say."""
    listed = [_constants(option) for option in options if isinstance(option, Mapping)]
    constants = [each for each in listed if each is not None]
    if len(constants) == len(options):
        return len(frozenset().union(*constants)) == sum(map(len, constants))
    if len(options) > MAX_OPTIONS:
        return False
    pairs = ((one, other) for place, one in enumerate(options) for other in options[:place])
    return all(_disjoint(one, other, MAX_COMPARED_DEPTH) for one, other in pairs)


def _disjoint(one: object, other: object, depth: int) -> bool:
    if not (depth and isinstance(one, Mapping) and isinstance(other, Mapping)):
        return False
    if not _types(one) & _types(other):
        return True
    mine, theirs = _constants(one), _constants(other)
    if mine is not None and theirs is not None:
        return not mine & theirs
    required = {*_names(one.get("required")), *_names(other.get("required"))}
    here, there = one.get("properties"), other.get("properties")
    if _types(one) != {"object"} or _types(other) != {"object"}:
        return False
    if not (isinstance(here, Mapping) and isinstance(there, Mapping)):
        return False
    return any(_disjoint(here[name], there[name], depth - 1) for name in required & here.keys() & there.keys())


def _names(value: object) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _types(schema: Mapping[str, Any]) -> frozenset[str]:
    """The types that a schema allows; all of them where it does not say."""
    told = schema.get("type")
    told = [told] if isinstance(told, str) else told
    if not isinstance(told, list):
        return _UNTYPED
    return frozenset("number" if each == "integer" else str(each) for each in told)


def _constants(schema: Mapping[str, Any]) -> frozenset[str] | None:
    """The strings that a schema lists; None where it lists something else, or nothing."""
    listed: object = [schema["const"]] if "const" in schema else schema.get("enum")
    if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
        return None
    return frozenset(listed)
