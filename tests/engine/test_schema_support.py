"""Keywords that structured outputs do not enforce are named, and a lenient schema does without them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from engine.api import Grammar, RequestError, unenforced_keywords, without_unenforced
from engine.decode.definition import define
from engine.decode.grammar import GrammarCompiler
from engine.decode.trial import new_matcher
from engine.pattern_support import is_supported
from engine.tokenizer import Tokenizer

FAST = Path(__file__).resolve().parents[2] / "deployments" / "models" / "fast"
A, B = {"properties": {"kind": {"const": "a"}}}, {"properties": {"kind": {"const": "b"}}}
OBJECT = {"type": "object", "required": ["kind"]}
TWO: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "null"}, "b": {"type": "null"}}}


@pytest.fixture(scope="module")
def compiler() -> GrammarCompiler:
    tokenizer = Tokenizer.from_directory(FAST)
    return tokenizer.grammar_compiler(tokenizer.size)


def llguidance_says(compiler: GrammarCompiler, schema: dict[str, Any]) -> list[str]:
    """What it warns of when it compiles leniently."""
    vocabulary, _ = compiler._load()
    found: set[str] = set()
    for warning in new_matcher(vocabulary, define(Grammar.json_schema(schema, strict=False))).get_grammar_warnings():
        if warning.startswith("Unimplemented keys"):
            found |= set(re.findall(r'"([^"]+)"', warning))
        elif warning.startswith("Unknown format"):
            found.add("format:" + warning.partition(": ")[2])
        elif warning.startswith("min/max"):
            found |= {"minProperties", "maxProperties"} & schema.keys()
        else:
            assert warning.startswith("oneOf")
            found.add("oneOf")
    return sorted(found)


SCHEMAS: list[tuple[dict[str, Any], list[str]]] = [
    ({"type": "array", "uniqueItems": True, "contains": {"type": "null"}}, ["contains", "uniqueItems"]),
    ({"type": "object", "properties": {"not": {"type": "string"}, "if": {}}}, []),
    ({"type": "object", "properties": {"a": {"not": {"type": "null"}}}}, ["not"]),
    ({"type": "object", "patternProperties": {"a": {"if": {}, "then": {}}}}, ["if", "then"]),
    (
        {"type": "object", "propertyNames": {"maxLength": 3}, "dependentRequired": {}},
        ["dependentRequired", "propertyNames"],
    ),
    ({"type": "string", "format": "idn-email"}, ["format:idn-email"]),
    ({"type": "integer", "format": "int64"}, []),
    ({"type": "string", "format": "date"}, []),
    ({"$ref": "#/elsewhere/a", "elsewhere": {"a": {"not": {}}}}, ["not"]),
    ({"anyOf": [{"type": "null"}, {"prefixItems": [{"unevaluatedItems": False}]}]}, ["unevaluatedItems"]),
    ({"oneOf": [{"type": "null"}, {"type": "string"}]}, []),
    ({"oneOf": [{"const": "a"}, {"const": "b"}]}, []),
    ({"oneOf": [OBJECT | A, OBJECT | B]}, []),
    ({"oneOf": [OBJECT | A, OBJECT | A]}, ["oneOf"]),
    ({"oneOf": [{"type": "object"}, {"type": "object"}]}, ["oneOf"]),
    (TWO | {"minProperties": 2}, ["minProperties"]),
    (TWO | {"minProperties": 2, "required": ["a", "b"]}, []),
    (TWO | {"minProperties": 1, "additionalProperties": False}, []),
    (TWO | {"maxProperties": 1}, ["maxProperties"]),
    ({"type": "string", "title": "not", "nullable": True, "x-own": {"not": {}}}, []),
    ({"enum": [{"not": 1}]}, []),
]

REFUSED: list[tuple[dict[str, Any], list[str]]] = [
    ({"type": "string", "pattern": "(?=a)b"}, ["pattern"]),
    ({"type": "object", "properties": {"a": {"pattern": "(?<!a)b"}}}, ["pattern"]),
    ({"type": "array", "items": {"anyOf": [{"type": "null"}, {"pattern": r"(a)\1"}]}}, ["pattern"]),
    ({"type": "object", "patternProperties": {"(?!a)": {}, "^b$": {"type": "null"}}}, ["patternProperties"]),
    ({"$ref": "http://x/y"}, ["$ref"]),
    ({"type": "object", "properties": {"a": {"$ref": "other.json#/a"}}}, ["$ref"]),
    ({"$defs": {"a": {"$ref": "http://x/y"}}}, ["$ref"]),
    ({"$ref": "#/$defs/missing"}, ["$ref"]),
    ({"$ref": "#missing"}, ["$ref"]),
    ({"$ref": "http://[x"}, ["$ref"]),
    ({"not": {"$ref": "http://x/y"}}, ["not"]),
    ({"dependentSchemas": {"a": {"$ref": "http://x/y"}}}, ["dependentSchemas"]),
]


@pytest.mark.parametrize(("schema", "names"), REFUSED, ids=[json.dumps(schema)[:60] for schema, _ in REFUSED])
def test_what_a_compiler_refuses_is_named_and_a_lenient_schema_does_without_it(
    compiler: GrammarCompiler, schema: dict[str, Any], names: list[str]
) -> None:
    before = json.dumps(schema)

    assert unenforced_keywords(schema) == names
    compiler.compile(Grammar.json_schema(schema, strict=False), 0)
    with pytest.raises(RequestError):
        compiler.compile(Grammar.json_schema(schema), 0)
    assert json.dumps(schema) == before


FOLLOWED: list[dict[str, Any]] = [
    {"type": "integer", "pattern": "(?=a)"},
    {"properties": {"pattern": {"type": "string"}, "$ref": {"type": "null"}}},
    {"enum": [{"$ref": "http://x/y"}]},
    {"$ref": "#/anyOf/0", "anyOf": [{"type": "string"}]},
    {"$ref": "#/$defs/a%20b", "$defs": {"a b": {"type": "null"}}},
    {"$ref": "#foo", "$defs": {"a": {"$anchor": "foo", "type": "string"}}},
    {"$id": "http://x/y", "$ref": "y#/$defs/a", "$defs": {"a": {"type": "string"}}},
    {"$id": "http://x/r", "$ref": "other", "$defs": {"d": {"$id": "http://x/other", "type": "string"}}},
]


@pytest.mark.parametrize("schema", FOLLOWED, ids=lambda schema: json.dumps(schema)[:60])
def test_what_a_compiler_follows_is_kept(compiler: GrammarCompiler, schema: dict[str, Any]) -> None:
    assert without_unenforced(schema) == schema
    assert unenforced_keywords(schema) == []
    compiler.compile(Grammar.json_schema(schema), 0)


def test_a_property_whose_pattern_is_left_out_is_not_forbidden_instead() -> None:
    schema = {"type": "object", "patternProperties": {"(?!a)": {}, "b": {}}, "additionalProperties": False}

    assert without_unenforced(schema) == {"type": "object", "patternProperties": {"b": {}}}


PATTERNS = {
    True: (
        r"^a$|^b$ a* a+? a{2} a{2,} a{2,3} (a|b)+ (?:^a$) ^^a$$ | () \d+\/\w [\w-z] [^]a] [[:alpha:]] [a-z&&[^b]]"
        r" \p{L}+ \p{Script=Greek} \x41 \u0041 \u{41} (?i)abc (?i:a) (?P<n>a) (?<n>a) \- \_ \@ \. } ] "
        r"\Aa\z [\w-\.] x{1,2}{3}"
    ),
    False: (
        r"(?=a)b (?!a)b (?<=a)b (?<!a)b (a)\1 (?<n>a)\k<n> (?P<n>a)(?P=n) (?>a) \bword\b \Ba a$b a^b (a$)b a(^b) "
        r"(a$|b)c ^*a a$? \cJ [^] [] ( a) a{ a{2 { a{,3} a{2,1} *a [a-\d] [\b] \Z \e (?#c)a [a-z \u00 \x4 \q \Qa\E "
        r"\<a a\0"
    ),
}


@pytest.mark.parametrize(("pattern", "good"), [(each, good) for good in PATTERNS for each in PATTERNS[good].split()])
def test_patterns_are_supported_as_the_compiler_says(compiler: GrammarCompiler, pattern: str, good: bool) -> None:
    vocabulary, _ = compiler._load()
    schema = Grammar.json_schema({"type": "string", "pattern": pattern})

    assert is_supported(pattern) is good
    assert new_matcher(vocabulary, define(schema)).is_error() is not good


@pytest.mark.parametrize(("schema", "names"), SCHEMAS, ids=[json.dumps(schema)[:60] for schema, _ in SCHEMAS])
def test_unenforced_keywords_are_those_that_llguidance_ignores(
    compiler: GrammarCompiler, schema: dict[str, Any], names: list[str]
) -> None:
    assert unenforced_keywords(schema) == names
    assert llguidance_says(compiler, schema) == names


@pytest.mark.parametrize(("schema", "names"), [pair for pair in SCHEMAS if pair[1]], ids=lambda value: str(value)[:40])
def test_a_strict_schema_is_refused_for_them_and_a_lenient_one_is_not(
    compiler: GrammarCompiler, schema: dict[str, Any], names: list[str]
) -> None:
    compiler.compile(Grammar.json_schema(schema, strict=False), 0)

    with pytest.raises(RequestError):
        compiler.compile(Grammar.json_schema(schema), 0)


@pytest.mark.parametrize(
    "schema",
    [
        True,
        {"$ref": "#"},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}},
        {"properties": 5, "items": "x", "oneOf": [5], "$ref": 5, "format": []},
        {"oneOf": [{"type": "object", "properties": {f"p{n}": {}}} for n in range(5_000)]},
        {"oneOf": [{"const": f"{n}"} for n in range(5_000)]},
    ],
    ids=["true", "itself", "a circle", "nonsense", "many options", "many constants"],
)
def test_any_schema_can_be_looked_at(schema: Any) -> None:
    assert unenforced_keywords(schema) in ([], ["oneOf"])
