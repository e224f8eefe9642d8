"""Finds the keywords of a JSON schema that structured output does not enforce. Pure functions; imports neither torch
nor llguidance.

A lenient grammar (``Grammar.json_schema(schema, strict=False)``) follows the schema except for these keywords. A strict
one is refused because of the first of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote, urljoin

from engine.pattern_support import is_supported

MAX_OPTIONS = 64  # most options of a oneOf that are compared pair by pair; constants are compared all at once
MAX_COMPARED_DEPTH = 16  # deepest nested property by which two options may exclude each other

MAX_INDEX_DIGITS = 8  # most digits of a list index in a JSON pointer

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
_IGNORED_ALONE = ("contains", "else", "if", "not", "propertyNames", "then", "unevaluatedItems", "unevaluatedProperties")
_META_SCHEMAS = ("http://json-schema.org/draft-0", "https://json-schema.org/draft/20")
_UNTYPED = frozenset({"array", "boolean", "null", "number", "object", "string"})


def unenforced_keywords(schema: Mapping[str, Any] | bool) -> list[str]:
    """Returns the keywords in ``schema`` that are not enforced, sorted and without duplicates. A format is written
    ``format:its-name``. ``oneOf`` is listed if its options cannot be shown to exclude each other; the answer then
    follows any of them. ``pattern`` is listed if its regular expression is not supported, ``$ref`` if it refers to
    something outside the schema. Definitions are searched whether something refers to them or not."""
    known = _Resources(schema)
    return sorted({keyword for each in _schemas(schema) for keyword in (*_own(each), *_refused(each, known))})


def without_unenforced(schema: Mapping[str, Any] | bool) -> Mapping[str, Any] | bool:
    """Returns a copy of ``schema`` without the patterns and references that ``unenforced_keywords`` lists, because the
    compiler refuses these even if it ignores other keywords. The copy allows whatever ``schema`` allows. Raises
    RecursionError for a schema that is nested hundreds of levels deep."""
    if isinstance(schema, bool):
        return schema
    return _without_refused(schema, _Resources(schema))


class _Resources:
    """The targets that references within one schema may have: its ``$id`` names and ``$anchor`` names."""

    def __init__(self, root: object) -> None:
        self._root = root
        named = [each["$id"] for each in _schemas(root) if isinstance(each.get("$id"), str)]
        own = root.get("$id") if isinstance(root, Mapping) else None
        self._base = own if isinstance(own, str) else ""
        self._names = {_absolute(self._base, name) for name in ("", *named)}
        self._anchors = {each.get("$anchor") for each in _schemas(root) if isinstance(each.get("$anchor"), str)}

    def has(self, reference: str) -> bool:
        """Returns whether ``reference`` refers to something in this schema, or to a published version of JSON Schema
        itself."""
        url, _, fragment = _absolute(self._base, reference).partition("#")
        if url.startswith(_META_SCHEMAS):
            return True
        if url not in self._names:
            return False
        if url != _absolute(self._base, ""):
            return True  # into a nested schema with its own $id, whose fragments are not checked
        if not fragment or fragment in self._anchors:
            return True
        return fragment.startswith("/") and _resolved(self._root, f"#{fragment}") is not None


def _absolute(base: str, reference: str) -> str:
    """Returns the absolute URL of a reference, or the reference itself if it is no URL."""
    try:
        return urljoin(base, reference).removesuffix("#")
    except ValueError:
        return reference


def _refused(schema: Mapping[str, Any], known: _Resources) -> Iterator[str]:
    """Yields the keywords directly in ``schema`` that the compiler refuses even if it ignores others."""
    reference, pattern, named = schema.get("$ref"), schema.get("pattern"), schema.get("patternProperties")
    if isinstance(reference, str) and not known.has(reference):
        yield "$ref"
    if isinstance(pattern, str) and "string" in _types(schema) and not is_supported(pattern):
        yield "pattern"
    if isinstance(named, Mapping) and not all(is_supported(str(name)) for name in named):
        yield "patternProperties"


def _without_refused(schema: Mapping[str, Any], known: _Resources) -> dict[str, Any]:
    """Returns a copy of ``schema`` without the keywords that ``_refused`` yields, also in the schemas within it."""
    refused = set(_refused(schema, known))
    kept = {keyword: value for keyword, value in schema.items() if keyword not in refused - {"patternProperties"}}
    if "patternProperties" in refused:
        kept["patternProperties"] = {
            name: value for name, value in schema["patternProperties"].items() if is_supported(name)
        }
        kept.pop("additionalProperties", None)  # it would be applied to the properties whose pattern is left out
    for keyword in kept.keys() & {*_ALONE, *_IN_LISTS, *_IN_VALUES, *_IGNORED_ALONE, "dependentSchemas"}:
        value = kept[keyword]
        if isinstance(value, list):
            kept[keyword] = [_part_without_refused(each, known) for each in value]
        elif keyword in _IN_VALUES or keyword == "dependentSchemas":
            parts = value.items() if isinstance(value, Mapping) else ()
            kept[keyword] = {name: _part_without_refused(each, known) for name, each in parts} if parts else value
        else:
            kept[keyword] = _part_without_refused(value, known)
    return kept


def _part_without_refused(part: object, known: _Resources) -> object:
    """Returns ``_without_refused`` of a schema, and anything else unchanged."""
    return _without_refused(part, known) if isinstance(part, Mapping) else part


def _schemas(root: object) -> Iterator[Mapping[str, Any]]:
    """Yields a schema, all schemas within it, and those that it refers to by JSON pointers; each once."""
    waiting, seen = [root], set[int]()
    while waiting:
        schema = waiting.pop()
        if isinstance(schema, Mapping) and id(schema) not in seen:
            seen.add(id(schema))
            yield schema
            waiting += _parts(schema)
            waiting.append(_resolved(root, schema.get("$ref")))


def _parts(schema: Mapping[str, Any]) -> Iterator[object]:
    """Yields the schemas directly within ``schema``."""
    for keyword in _ALONE:
        yield schema.get(keyword)
    for keyword in _IN_LISTS:
        listed = schema.get(keyword)
        yield from listed if isinstance(listed, list) else ()
    for keyword in _IN_VALUES:
        named = schema.get(keyword)
        yield from named.values() if isinstance(named, Mapping) else ()


def _resolved(root: object, reference: object) -> object:
    """Returns the part of ``root`` that a JSON pointer such as ``#/$defs/a`` names, or None if there is none."""
    if not (isinstance(reference, str) and reference.startswith("#/")):
        return None
    place = root
    for name in reference[2:].split("/"):
        name = unquote(name).replace("~1", "/").replace("~0", "~")
        if isinstance(place, Mapping):
            place = place.get(name)
        elif isinstance(place, list) and name.isdecimal() and len(name) < MAX_INDEX_DIGITS and int(name) < len(place):
            place = place[int(name)]
        else:
            return None
    return place


def _own(schema: Mapping[str, Any]) -> Iterator[str]:
    """Yields the unenforced keywords directly in ``schema``, not those of the schemas within it."""
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
    """Returns whether limits on the number of properties are enforced: if all named properties are required, or if the
    object is closed and the limits allow at most one optional property."""
    named, required = schema.get("properties", {}), schema.get("required", [])
    if not (isinstance(named, Mapping) and isinstance(required, list)):
        return True  # an invalid schema, which the compiler refuses
    if named.keys() <= set(map(str, required)):
        return True
    least, most = schema.get("minProperties", 0), schema.get("maxProperties")
    few = least in (0, 1, len(required), len(required) + 1) and most in (None, 1, len(required) + 1)
    return few and schema.get("additionalProperties") is False and "patternProperties" not in schema


def _exclusive(options: list[Any]) -> bool:
    """Returns whether types and constants show that no value is valid under two of ``options``."""
    listed = [_constants(option) for option in options if isinstance(option, Mapping)]
    constants = [each for each in listed if each is not None]
    if len(constants) == len(options):
        return len(frozenset().union(*constants)) == sum(map(len, constants))
    if len(options) > MAX_OPTIONS:
        return False
    pairs = ((one, other) for place, one in enumerate(options) for other in options[:place])
    return all(_disjoint(one, other, MAX_COMPARED_DEPTH) for one, other in pairs)


def _disjoint(one: object, other: object, depth: int) -> bool:
    """Returns whether types and constants show that no value is valid under both schemas, comparing required properties
    down to ``depth`` levels."""
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
    """Returns the strings in a list, and an empty list for anything else."""
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _types(schema: Mapping[str, Any]) -> frozenset[str]:
    """Returns the types that a schema allows, all of them if it names none. ``integer`` counts as ``number``."""
    named = schema.get("type")
    named = [named] if isinstance(named, str) else named
    if not isinstance(named, list):
        return _UNTYPED
    return frozenset("number" if each == "integer" else str(each) for each in named)


def _constants(schema: Mapping[str, Any]) -> frozenset[str] | None:
    """Returns the strings that a schema lists by ``const`` or ``enum``, or None if it lists no values or others than
    strings."""
    listed: object = [schema["const"]] if "const" in schema else schema.get("enum")
    if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
        return None
    return frozenset(listed)
