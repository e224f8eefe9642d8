"""Answers have the form that was asked for, at any temperature, whatever else is in the batch."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from engine import Engine, SamplingParams
from engine.api import FinishReason, GenerationRequest, Grammar, RequestError
from engine.completion import Completion
from engine.decode.grammar import GrammarError, GrammarState
from engine.seeds import choice_seed

MODELS = Path(__file__).resolve().parents[2] / "deployments" / "models"
MakeEngine = Callable[..., Engine]
PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "b", "c"]}, "maxItems": 3},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
LONG = {name: {"type": "boolean"} for name in ("interesting", "comprehensible", "recommendable")}
CLOSED = {"additionalProperties": False}
WILD = SamplingParams(temperature=1.5, seed=7, max_tokens=120)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = Engine.from_pretrained(MODELS / "fast", kv_cache_tokens=16_384)
    yield engine
    engine.close()


def answers(engine: Engine, grammar: Grammar, count: int = 24, **settings: Any) -> list[Completion]:
    params = [replace(WILD, grammar=grammar, seed=seed, **settings) for seed in range(count)]
    return engine.generate([f"Tell me something of {n}." for n in range(count)], params)


def test_json_by_a_schema_is_valid(engine: Engine) -> None:
    found = answers(engine, Grammar.json_schema(PERSON))

    whole = [answer for answer in found if answer.finish_reason is FinishReason.STOP]
    assert len(whole) > 20
    for answer in whole:
        jsonschema.validate(json.loads(answer.text), PERSON)
    assert len({answer.text for answer in whole}) > 10
    assert engine.stats().blocks_used == 0


def test_a_json_object_is_one(engine: Engine) -> None:
    found = answers(engine, Grammar.json_object(), temperature=1.0)

    whole = [answer for answer in found if answer.finish_reason is FinishReason.STOP]
    assert len(whole) > 4
    assert all(isinstance(json.loads(answer.text), dict) for answer in whole)


def test_what_must_be_written_is_written_whatever_else_is_forbidden(engine: Engine) -> None:
    """With a step for each token as without."""
    grammar = Grammar.json_schema(PERSON)
    word = SamplingParams(temperature=0, bad_words=("name",), no_repeat_ngram_size=1, max_tokens=8, grammar=grammar)

    jumped, walked = engine.generate(["Who?", "Who?"], [word, replace(word, logprobs=0)])

    assert jumped.text.startswith('{"name": "')
    assert walked.token_ids == jumped.token_ids


def test_a_prompt_is_scored_before_an_answer_with_a_form(engine: Engine) -> None:
    params = replace(WILD, grammar=Grammar.json_schema(PERSON), prompt_logprobs=0)

    [answer] = engine.generate(["Who is it?"], params)

    assert answer.prompt_logprobs is not None
    assert len(answer.prompt_logprobs) == answer.usage.prompt_tokens


@pytest.mark.parametrize("exactly", [False, True])
def test_of_a_whole_answer_with_a_form_only_the_end_is_sent(engine: Engine, exactly: bool) -> None:
    params = SamplingParams(temperature=0, grammar=Grammar.choice(["yes", "no"]))
    [whole] = engine.generate(["Is it?"], params)
    if exactly:
        params = replace(params, max_tokens=len(whole.token_ids))
        [same] = engine.generate(["Is it?"], params)
        assert (same.token_ids, same.finish_reason) == (whole.token_ids, FinishReason.STOP)
    engine.add(GenerationRequest("r", "Is it?", params, resume=whole.token_ids))
    [delta] = engine.step()
    assert (delta.token_ids, delta.text, delta.finish_reason) == ((), "", FinishReason.STOP)


def test_what_does_not_follow_its_grammar_is_not_resumed(engine: Engine) -> None:
    grammar = Grammar.choice(["yes", "no"])
    [whole] = engine.generate(["Is it?"], SamplingParams(temperature=0, grammar=grammar))

    for resume in ((*whole.token_ids, 5), (5, 5, 5)):
        with pytest.raises(RequestError) as refusal:
            engine.add(GenerationRequest("r", "Is it?", SamplingParams(grammar=grammar), resume=resume))
        assert refusal.value.param == "resume"


@pytest.mark.parametrize("pattern", [r"[A-Z]{2}-[0-9]{3}(, [A-Z]{2}-[0-9]{3}){0,2}", r"(yes|no)\.", r"é{1,3}🎉?"])
def test_text_matches_its_pattern_as_a_whole(engine: Engine, pattern: str) -> None:
    for answer in answers(engine, Grammar.regex(pattern)):
        assert answer.finish_reason is FinishReason.STOP
        assert re.fullmatch(pattern, answer.text)


def test_one_of_the_choices_is_chosen(engine: Engine) -> None:
    choices = ["positive", "negative", 'it is "neutral"\\', "neutral"]

    found = {answer.text for answer in answers(engine, Grammar.choice(choices), count=60, temperature=5.0)}

    assert found <= set(choices)
    assert len(found) > 1


def test_a_grammar_is_followed(engine: Engine) -> None:
    sums = Grammar.lark('start: number (" + " number){1,3}\nnumber: /[1-9][0-9]{0,2}/')

    for answer in answers(engine, sums):
        assert re.fullmatch(r"[1-9][0-9]{0,2}( \+ [1-9][0-9]{0,2}){1,3}", answer.text)


def test_free_requests_in_the_batch_stay_free(engine: Engine) -> None:
    grammar = Grammar.regex(r"[0-9]{20}")
    free = SamplingParams(temperature=1.0, seed=3, max_tokens=20, ignore_eos=True)
    [alone] = engine.generate(["Hello"], free)

    bound, beside = engine.generate(["Hello", "Hello"], [replace(free, grammar=grammar, ignore_eos=False), free])

    assert re.fullmatch("[0-9]{20}", bound.text)
    assert beside.token_ids == alone.token_ids


def test_a_seed_gives_the_same_answer_alone_in_a_batch_and_after_preemption(engine: Engine) -> None:
    together = [answer.token_ids for answer in answers(engine, Grammar.json_schema(PERSON), count=8)]
    tight = Engine.from_pretrained(MODELS / "fast", kv_cache_tokens=256, prefix_caching=False)

    squeezed = [answer.token_ids for answer in answers(tight, Grammar.json_schema(PERSON), count=8)]

    assert squeezed == together
    assert tight.stats().preemptions > 0
    params = replace(WILD, grammar=Grammar.json_schema(PERSON), seed=3)
    assert engine.generate(["Tell me something of 3."], params)[0].token_ids == together[3]


def test_what_must_be_written_takes_no_steps_and_changes_no_answer(engine: Engine) -> None:
    """Where log probabilities are told, every token takes its own."""
    grammar = Grammar.json_schema({"type": "object", "properties": LONG, "required": list(LONG)} | CLOSED)
    before = engine.stats().steps
    jumped = answers(engine, grammar, count=8)
    between = engine.stats().steps

    walked = answers(engine, grammar, count=8, logprobs=0)

    assert [answer.token_ids for answer in jumped] == [answer.token_ids for answer in walked]
    assert [answer.text for answer in jumped] == [answer.text for answer in walked]
    assert between - before < 0.5 * (engine.stats().steps - between)
    assert all(list(json.loads(answer.text)) == list(LONG) for answer in jumped)


@pytest.mark.parametrize("most", range(1, 16))
def test_an_answer_is_cut_at_any_length(engine: Engine, most: int) -> None:
    params = replace(WILD, grammar=Grammar.json_schema(PERSON), seed=5)
    [whole] = engine.generate(["Who is it?"], params)

    [cut] = engine.generate(["Who is it?"], replace(params, max_tokens=most))

    assert cut.token_ids == whole.token_ids[:most]
    assert cut.finish_reason is FinishReason.LENGTH
    assert cut.usage.completion_tokens == most


def test_a_stop_string_ends_an_answer_within_what_must_be_written(engine: Engine) -> None:
    params = replace(WILD, grammar=Grammar.json_schema(PERSON), stop=("am",))

    [answer] = engine.generate(["Who is it?"], params)

    assert (answer.text, answer.finish_reason) == ('{"n', FinishReason.STOP)


def test_an_answer_goes_on_from_any_cut(engine: Engine) -> None:
    params = replace(WILD, grammar=Grammar.json_schema(PERSON), seed=5)
    [whole] = engine.generate(["Who is it?"], params)
    assert whole.finish_reason is FinishReason.STOP

    for cut in range(1, len(whole.token_ids)):
        engine.add(GenerationRequest("cut", "Who is it?", params, resume=whole.token_ids[:cut]))
        tokens = [token for _ in range(200) if engine.has_work for d in engine.step() for token in d.token_ids]
        assert (*whole.token_ids[:cut], *tokens) == whole.token_ids


def test_each_choice_has_its_own_place_in_the_grammar(engine: Engine) -> None:
    params = replace(WILD, grammar=Grammar.json_schema(PERSON), n=6, temperature=1.0)

    found = engine.generate(["Who is it?"], params)

    for choice, answer in enumerate(found):
        [alone] = engine.generate(["Who is it?"], replace(params, n=1, seed=choice_seed(7, choice)))
        assert answer.token_ids == alone.token_ids
        if answer.finish_reason is FinishReason.STOP:
            jsonschema.validate(json.loads(answer.text), PERSON)


@pytest.mark.parametrize(
    "grammar",
    [
        Grammar.json_schema({"type": "nonsense"}),
        Grammar("json_schema", "{no json"),
        Grammar.regex("("),
        Grammar.lark("start: missing"),
        Grammar.regex("a" * 300_000),
    ],
    ids=["schema", "no JSON", "pattern", "grammar", "long"],
)
def test_a_grammar_that_cannot_be_used_is_refused_with_a_reason(engine: Engine, grammar: Grammar) -> None:
    with pytest.raises(RequestError) as refusal:
        engine.generate(["Hello"], SamplingParams(grammar=grammar))

    assert refusal.value.param == "grammar"
    assert len(refusal.value.message) < 700
    assert not engine.has_work


def test_a_grammar_that_gave_up_is_compiled_anew(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    params = SamplingParams(grammar=Grammar.regex("[ab]{3}"), max_tokens=9)
    compiled = engine._admission.grammars._compiled
    [whole] = engine.generate(["Hello"], params)
    assert params.grammar in compiled

    def give_up(state: GrammarState, tokens: Any) -> None:
        raise GrammarError("out of fuel")

    engine.add(GenerationRequest("a", "Hello", replace(params, seed=1)))
    with monkeypatch.context() as broken:
        broken.setattr(GrammarState, "read", give_up)
        [delta] = [delta for _ in range(3) for delta in engine.step()]

    assert delta.finish_reason is FinishReason.REFUSED
    assert params.grammar not in compiled
    assert re.fullmatch("[ab]{3}", whole.text)
    assert re.fullmatch("[ab]{3}", engine.generate(["Hello"], params)[0].text)


def test_an_engine_that_sees_no_grammar_runs_without_the_library() -> None:
    code = (
        "import sys; sys.modules['llguidance'] = None\n"
        "from engine import Engine, SamplingParams\n"
        f"engine = Engine.from_pretrained({str(MODELS / 'fast')!r}, kv_cache_tokens=256)\n"
        "print(len(engine.generate(['Hi'], SamplingParams(max_tokens=3, ignore_eos=True))[0].token_ids))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.stdout.strip() == "3", done.stderr


@pytest.mark.parametrize("temperature", [0.0, 0.8, 2.0])
@pytest.mark.parametrize(
    "grammar",
    [Grammar.json_schema(PERSON), Grammar.regex(r"[a-z]+ [0-9]{2,4}\."), Grammar.choice(["yes", "yes, it is", "no"])],
    ids=lambda grammar: grammar.kind,
)
def test_asking_after_drawing_changes_nothing(engine: Engine, grammar: Grammar, temperature: float) -> None:
    """Log probabilities of what is allowed need the grammar before anything is drawn."""
    settings: dict[str, Any] = {"count": 8, "temperature": temperature, "min_tokens": 2, "n": 2}
    late = answers(engine, grammar, **settings)
    early = answers(engine, grammar, **settings, logprobs=0, logprobs_mode="processed")

    assert [answer.token_ids for answer in late] == [answer.token_ids for answer in early]
