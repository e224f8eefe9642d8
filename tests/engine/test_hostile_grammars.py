"""Whatever grammar a client sends: an answer by it, or a quick refusal in plain words that harms no other request."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from engine import AsyncEngine, Delta, Engine, FinishReason, GenerationRequest, Grammar, RequestError, SamplingParams
from engine.api import MAX_GRAMMAR_CHARS
from engine.decode.budget import MAX_OPERATION_S, MAX_SLOW_S, SLOW_OPERATION_S
from engine.decode.grammar import GrammarCompiler, GrammarError
from engine.decode.meter import Meter

FAST = Path(__file__).resolve().parents[2] / "deployments" / "models" / "fast"
Schema = dict[str, Any]
OPTIONAL_PARTS = "start: " + " ".join(["r?"] * 20_000) + '\nr: "a"'


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = Engine.from_pretrained(FAST, kv_cache_tokens=16_384)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def compiler(engine: Engine) -> GrammarCompiler:
    return engine._admission.grammars


def refusal_of(compiler: GrammarCompiler, grammar: Grammar) -> str:
    with pytest.raises(RequestError) as refusal:
        compiler.compile(grammar, 0)
    assert refusal.value.code == "invalid_grammar"
    return refusal.value.message


def chain(length: int, link: Callable[[Schema], Schema]) -> Schema:
    """Definitions that refer to each other, one after another."""
    links = {str(place): link({"$ref": f"#/$defs/{place + 1}"}) for place in range(length)}
    return {"$ref": "#/$defs/0", "$defs": {**links, str(length): {"type": "string"}}}


def rules(length: int, rule: str) -> str:
    lines = [rule.format(place, place + 1) for place in range(length)]
    return "\n".join([f"start: {rule[0]}0", *lines, f'{rule[0]}{length}: "a"'])


LINKS: dict[str, Callable[[Schema], Schema]] = {
    "items": lambda ref: {"items": ref},
    "properties": lambda ref: {"properties": {"a": ref}},
    "additionalProperties": lambda ref: {"additionalProperties": ref},
    "allOf": lambda ref: {"allOf": [ref]},
    "anyOf": lambda ref: {"anyOf": [ref, {"type": "null"}]},
    "$ref": lambda ref: ref,
}


def schema_of(link: Callable[[Schema], Schema]) -> Callable[[int], Grammar]:
    return lambda length: Grammar.json_schema(chain(length, link))


CHAINS: dict[str, Callable[[int], Grammar]] = {
    **{f"schema by {name}": schema_of(link) for name, link in LINKS.items()},
    "rules": lambda n: Grammar.lark(rules(n, "r{}: r{}")),
    "rules that nest": lambda n: Grammar.lark(rules(n, 'r{}: "b" | "a" r{} "c"')),
    "terminals": lambda n: Grammar.lark(rules(n, "R{}: R{}")),
    "schema within rules": lambda n: Grammar.lark(f"start: %json {json.dumps(chain(n, LINKS['items']))}"),
}


@pytest.mark.parametrize("make", CHAINS.values(), ids=CHAINS)
def test_a_long_chain_is_refused_and_a_short_one_is_not(
    engine: Engine, compiler: GrammarCompiler, make: Callable[[int], Grammar]
) -> None:
    for length in (2400, 1000):
        grammar = make(length)
        if len(grammar.source) < MAX_GRAMMAR_CHARS:
            message = refusal_of(compiler, grammar)
            assert message.endswith("form a chain that is too deep, or it needs too much memory.")
            assert refusal_of(compiler, grammar) == message

    compiler.compile(make(60), 0)

    assert engine.generate(["Hi"], SamplingParams(max_tokens=2, ignore_eos=True))[0].usage.completion_tokens == 2


DEEP = {
    "brackets of a schema": Grammar("json_schema", "[" * 60_000),
    "schemas within schemas": Grammar("json_schema", '{"items":' * 6_000 + "{}" + "}" * 6_000),
    "schemas a little too deep": Grammar("json_schema", '{"items":' * 500 + "{}" + "}" * 500),
    "groups of a pattern": Grammar.regex("(" * 30_000 + "a" + ")" * 30_000),
    "groups of a rule": Grammar.lark("start: " + "(" * 30_000 + '"a"' + ")" * 30_000),
    "nots of a terminal": Grammar.lark("start: T\nT: " + "~(" * 15_000 + "/a/" + ")" * 15_000),
}


@pytest.mark.parametrize("grammar", DEEP.values(), ids=DEEP)
def test_what_is_nested_too_deeply_is_refused(compiler: GrammarCompiler, grammar: Grammar) -> None:
    assert refusal_of(compiler, grammar) == f"The {grammar.kind} cannot be used: it is nested too deeply."


def any_of_products(factors: int) -> Schema:
    def factor(number: int) -> Schema:
        names = (f"p{number}_{option}" for option in range(4))
        return {"anyOf": [{"type": "object", "properties": {name: {"type": "string"}}} for name in names]}

    return {"allOf": [factor(number) for number in range(factors)]}


EXPENSIVE = {
    "a product of alternatives": Grammar.json_schema(any_of_products(6)),
    "a larger product of alternatives": Grammar.json_schema(any_of_products(12)),
    "repetitions within repetitions": Grammar.regex("((((a{100}){100}){100}){100})"),
    "many optional parts": Grammar.lark(OPTIONAL_PARTS),
    "optional parts after a letter": Grammar.lark('start: "b" x\nx: ' + " ".join(["r?"] * 15_000) + '\nr: "a"'),
    "patterns that exclude each other": Grammar.lark(
        "start: T\nT: " + " & ".join(f"/(.*a.{{{number}}})*/" for number in range(1, 30))
    ),
    "a rule without an end": Grammar.lark('start: a\na: "x" a'),
    "very many properties": Grammar.json_schema(
        {
            "type": "object",
            "properties": {f"p{n}": {"type": "null"} for n in range(2_200)},
            "additionalProperties": False,
        }
    ),
}


@pytest.mark.parametrize("grammar", EXPENSIVE.values(), ids=EXPENSIVE)
def test_what_is_too_expensive_is_refused_in_plain_words(compiler: GrammarCompiler, grammar: Grammar) -> None:
    message = refusal_of(compiler, grammar)

    assert re.fullmatch(rf"The {grammar.kind} cannot be used: [^.:\n]*(: [^.:\n]*)?\.", message)
    assert not re.search("panic|backtrace|assertion|unknown>|fuel|limit", message)


ODD = {
    "a schema that is a number": Grammar("json_schema", "5"),
    "no JSON": Grammar("json_schema", "{no"),
    "a number that JSON lacks": Grammar("json_schema", '{"minimum": NaN}'),
    "a number that is too large": Grammar("json_schema", '{"minimum": 1e999}'),
    "a number of too many digits": Grammar("json_schema", '{"minimum": ' + "9" * 5_000 + "}"),
    "half of a surrogate pair": Grammar.lark('start: "\ud800"'),
    "half of a surrogate pair as JSON": Grammar.json_schema({"const": "\ud800"}),
    "half of a surrogate pair in a choice": Grammar.choice(["\ud800"]),
    "options that are none": Grammar.json_schema({"x-guidance": 5}),
    "unknown options": Grammar.json_schema({"x-guidance": {"no": 1}}),
    "a schema for nothing": Grammar.json_schema(False),
    "a reference to itself": Grammar.json_schema({"$ref": "#"}),
    "references in a circle": Grammar.json_schema(
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}
    ),
    "a reference to another server": Grammar.json_schema({"$ref": "http://localhost:1/schema"}),
    "a rule that is itself": Grammar.lark("start: start"),
    "an empty grammar": Grammar.lark(""),
    "no choices": Grammar.choice([]),
    "choices that are none": Grammar("choice", "5"),
    "look-ahead": Grammar.regex("(?=a)"),
}


@pytest.mark.parametrize("grammar", ODD.values(), ids=ODD)
def test_what_is_no_grammar_is_refused_in_one_sentence(compiler: GrammarCompiler, grammar: Grammar) -> None:
    message = refusal_of(compiler, grammar)

    assert message.startswith(f"The {grammar.kind} cannot be used: ")
    assert message.endswith(".")
    assert "\n" not in message


def test_a_pattern_of_nothing_or_anything_is_none_of_them(compiler: GrammarCompiler) -> None:
    compiler.compile(Grammar.regex("^(|.*)$"), 0)


AMBIGUOUS = {
    "two or three of itself": 's: s s | s s s | "a" | "b"',
    "two, three or four of itself": 's: s s | s s s | s s s s | "a" | "b"',
    "two rules of each other": 's: t s | s t | t\nt: s s | "a" | s "b" s | s "c" s "d" s',
}


@pytest.mark.parametrize("ambiguous", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_a_grammar_that_gets_expensive_after_a_cheap_start_is_given_up_and_then_refused(
    engine: Engine, compiler: GrammarCompiler, ambiguous: str
) -> None:
    grammar = Grammar.lark(f'start: /[a-z ]{{60}}/ ";" s\n{ambiguous}')
    long = dict.fromkeys(engine._admission.tokenizer.eos_token_ids, -100.0)
    params = SamplingParams(temperature=1.0, seed=0, max_tokens=1_000, grammar=grammar, logit_bias=long)
    began = time.process_time()

    [slow, other] = engine.generate(["Hi", "Hi"], [params, SamplingParams(max_tokens=20, ignore_eos=True)])

    assert slow.finish_reason is FinishReason.REFUSED
    assert slow.error is not None
    assert slow.error.endswith("the steps of an answer take too long: too much may follow at one place.")
    assert other.usage.completion_tokens == 20
    assert time.process_time() - began < 12  # of which the grammar has 4, the rest is the model's
    assert not compiler.compile(Grammar.lark('start: "a"'), 0).complete
    assert refusal_of(compiler, grammar).endswith("too long: too much may follow at one place.")


def test_a_meter_counts_slow_operations_alone_and_by_the_token() -> None:
    meter = Meter()
    for _ in range(10_000):
        meter.add(SLOW_OPERATION_S / 2)
    meter.add(100.0, tokens=100_000)
    assert (meter.slow_s, meter.exhausted) == (0.0, False)

    for _ in range(math.ceil(MAX_SLOW_S / (2 * SLOW_OPERATION_S)) - 1):
        meter.add(2 * SLOW_OPERATION_S)
        assert not meter.exhausted
    meter.add(4 * SLOW_OPERATION_S)

    assert meter.exhausted


def test_one_operation_that_takes_far_too_long_is_enough() -> None:
    meter = Meter()

    meter.add(MAX_OPERATION_S * 1.1)

    assert meter.exhausted


def test_branches_of_a_request_share_its_meter(compiler: GrammarCompiler) -> None:
    state = compiler.compile(Grammar.regex("[ab]{4}"), 0)
    branch = state.copy()

    state._meter.add(MAX_SLOW_S + 1.0)

    assert branch.failed
    assert not compiler.compile(Grammar.regex("[ab]{4}"), 0).failed


class Watched:
    """Notes when each step has ended, in seconds."""

    def __init__(self) -> None:
        self.steps: list[float] = []

    def __call__(self, deltas: Sequence[Delta]) -> None:
        self.steps.append(time.monotonic())

    def longest_gap(self, since: float) -> float:
        times = [since, *(step for step in self.steps if step > since)]
        return max(later - earlier for earlier, later in zip(times, [*times[1:], time.monotonic()], strict=True))


@pytest.mark.parametrize("source", [OPTIONAL_PARTS, EXPENSIVE["optional parts after a letter"].source, ""])
def test_a_stream_does_not_stand_still_while_a_grammar_is_refused(engine: Engine, source: str) -> None:
    """The engine's own work with such a grammar took three to six seconds."""
    watched = Watched()
    subject = AsyncEngine(Engine.from_pretrained(FAST, kv_cache_tokens=2_048, max_sequences=1), watched)
    subject.start()
    grammar = Grammar.lark(source) if source else EXPENSIVE["repetitions within repetitions"]
    try:
        for number in range(40):  # one after another, more than there is time for
            request = SamplingParams(max_tokens=900, ignore_eos=True)
            subject.submit(GenerationRequest(f"stream {number}", (5, 6), request))
        began = time.monotonic()
        with pytest.raises(RequestError):
            subject.submit(GenerationRequest("other", (5, 6), SamplingParams(grammar=grammar)))
        assert watched.steps[-1] > began
        assert watched.longest_gap(began) < 1.0
        assert subject.stats().waiting > 0
    finally:
        subject.close()


MANY: dict[str, list[str]] = {
    "of one beginning": [f"item {number}" for number in range(2_048)],
    "of one length": [f"{number:011b}" for number in range(2_048)],
    "each the beginning of the next": ["a" * length for length in range(1, 300)],
    "of all kinds of characters": [f'{number}é\n"\\🎉\t[^$.|?*+(){{}}-]' for number in range(500)],
}


@pytest.mark.parametrize("choices", MANY.values(), ids=MANY)
def test_one_of_many_choices_is_chosen(engine: Engine, choices: list[str]) -> None:
    params = SamplingParams(temperature=1.0, max_tokens=400, grammar=Grammar.choice(choices))

    found = engine.generate(["Which?"] * 6, [replace(params, seed=seed) for seed in range(6)])

    assert all(answer.finish_reason is FinishReason.STOP for answer in found)
    assert {answer.text for answer in found} <= set(choices)


@pytest.mark.parametrize("count", [600, 1_000])
def test_an_object_may_have_many_optional_properties(engine: Engine, count: int) -> None:
    schema = {"type": "object", "properties": {f"p{n}": {"type": "null"} for n in range(count)}}
    grammar = Grammar.json_schema(schema | {"additionalProperties": False})
    params = SamplingParams(temperature=1.0, max_tokens=200, grammar=grammar)

    found = engine.generate(["What?"] * 4, [replace(params, seed=seed) for seed in range(4)])

    for answer in found:
        assert answer.finish_reason in (FinishReason.STOP, FinishReason.LENGTH)
        if answer.finish_reason is FinishReason.STOP:
            jsonschema.validate(json.loads(answer.text), schema)
        else:
            assert re.match(r'\{"p\d+": null, ', answer.text)


@pytest.mark.parametrize(
    "grammar", [Grammar.json_schema(True), Grammar("json_schema", "true"), Grammar.json_schema({})]
)
def test_the_schema_true_allows_any_json(engine: Engine, grammar: Grammar) -> None:
    params = SamplingParams(temperature=1.0, max_tokens=100, grammar=grammar)

    found = engine.generate(["What?"] * 8, [replace(params, seed=seed) for seed in range(8)])

    whole = [answer.text for answer in found if answer.finish_reason is FinishReason.STOP]
    assert whole
    for text in whole:
        json.loads(text)


def test_a_refusal_names_the_field_and_the_label_of_its_own_request(compiler: GrammarCompiler) -> None:
    """Both are no part of the grammar, which is refused once and compiled once."""
    first = Grammar("regex", "(", param="guided_regex")
    second = Grammar("regex", "(", param="tools", label="The pattern of a tool")

    for grammar, name in ((first, "The regex"), (second, "The pattern of a tool"), (first, "The regex")):
        with pytest.raises(RequestError) as refusal:
            compiler.compile(grammar, 0)
        assert refusal.value.param == grammar.param
        assert refusal.value.message == f"{name} cannot be used: regex parse error: unclosed group."


def test_a_refusal_does_not_quote_a_grammar_with_a_label(compiler: GrammarCompiler) -> None:
    source = 'start: head internal_rule(\nhead: "secret"'
    schema = json.dumps({"type": "array", "uniqueItems": True})

    assert "secret" not in refusal_of(compiler, Grammar("lark", source, label="The schema of a tool"))
    assert '"("' not in refusal_of(compiler, Grammar("lark", source, label="The schema of a tool"))
    message = refusal_of(compiler, Grammar("lark", f"start: %json {schema}", label="The schema of a tool"))
    assert message == (
        'The schema of a tool cannot be used: failed to compile JSON schema: Unimplemented keys: ["uniqueItems"].'
    )


def test_an_answer_that_its_grammar_gave_up_says_by_which(engine: Engine) -> None:
    grammar = Grammar("regex", "[ab]{4}", label="The pattern of a tool")
    state = engine._admission.grammars.compile(grammar, 0)

    with pytest.raises(GrammarError, match=r"The answer cannot go on by the pattern of a tool: .*\.$"):
        state.read([5, 6, 7])
