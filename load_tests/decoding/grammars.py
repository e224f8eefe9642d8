"""Whether constrained answers hold at a wild temperature, what constraints cost, and what forced tokens save.

    python -m load_tests.decoding.grammars

First 500 answers under 50 schemas from the wild, each validated; then 32 requests at once, free and under a grammar
that allows all text, in turns; then 32 JSON answers with and without forced tokens. Runs on an embedded model.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
from tqdm import tqdm

from engine import Engine, SamplingParams
from engine.api import FinishReason, Grammar, RequestError
from engine.completion import Completion
from engine.decode.grammar import GrammarCompiler
from engine.tokenizer import Tokenizer
from load_tests.decoding.schemas import DATA, ROOT

MODEL = ROOT / "deployments" / "models" / "frontier"
SCHEMAS, ANSWERS, AT_ONCE = 50, 10, 32
ALL_TEXT = Grammar.regex(r"(?s:.*)")
RECORD: dict[str, Any] = {
    "type": "object",
    "properties": {
        "identifier": {"type": "integer", "minimum": 0, "maximum": 9999},
        "description": {"type": "string", "maxLength": 24},
        "available": {"type": "boolean"},
        "category": {"enum": ["stationery", "groceries", "electronics"]},
    },
    "required": ["identifier", "description", "available", "category"],
    "additionalProperties": False,
}


def usable(compiler: GrammarCompiler, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The schemas of ``rows`` that are some and compile, with a type of their own: others allow nearly anything."""
    for row in rows:
        if row["schema"].get("type") == "object":
            try:
                jsonschema.validators.validator_for(row["schema"]).check_schema(row["schema"])
                compiler.compile(Grammar.json_schema(row["schema"]), 0)
            except (RequestError, jsonschema.SchemaError):
                continue
            yield row["schema"]


def hold(engine: Engine, compiler: GrammarCompiler, rows: Sequence[dict[str, Any]], most: int) -> None:
    """Answers under wild schemas, each validated, until there are enough schemas under which all came to an end: where
    text of any length is allowed, so wild a model may never close it."""
    ends: Counter[str] = Counter()
    invalid = whole = seen = 0
    with tqdm(total=SCHEMAS, unit=" schemas") as bar:
        for schema in usable(compiler, rows):
            if whole == SCHEMAS:
                break
            grammar = Grammar.json_schema(schema)
            params = [
                SamplingParams(temperature=1.5, seed=seen * ANSWERS + n, max_tokens=most, grammar=grammar)
                for n in range(ANSWERS)
            ]
            seen += 1
            answers = engine.generate([f"Make up example {n}." for n in range(ANSWERS)], params)
            ends.update(answer.finish_reason.value for answer in answers)
            invalid += sum(one.finish_reason is FinishReason.STOP and not is_valid(one, schema) for one in answers)
            if all(answer.finish_reason is FinishReason.STOP for answer in answers):
                whole += 1
                bar.update()
    print(f"{seen} schemas, under {whole} of which all {ANSWERS} answers came to an end within {most} tokens")
    print(f"ends: {dict(ends)}; of those that came to an end {invalid} are invalid")


def is_valid(answer: Completion, schema: dict[str, Any]) -> bool:
    """By jsonschema, which knows nothing of how it was written."""
    try:
        jsonschema.validate(json.loads(answer.text), schema)
    except (ValueError, jsonschema.ValidationError):
        return False
    return True


def rate(engine: Engine, params: SamplingParams) -> tuple[float, int, int]:
    """Tokens a second of 32 requests at once, the tokens, and the steps they took."""
    prompts = [f"Describe item {n}." for n in range(AT_ONCE)]
    steps, began = engine.stats().steps, time.perf_counter()
    answers = engine.generate(prompts, [replace(params, seed=n) for n in range(AT_ONCE)])
    tokens = sum(len(answer.token_ids) for answer in answers)
    return tokens / (time.perf_counter() - began), tokens, engine.stats().steps - steps


def cost(engine: Engine, rounds: int) -> None:
    """Free answers beside such that a grammar lets say anything, in turns."""
    free = SamplingParams(temperature=1.0, max_tokens=64, min_tokens=64)
    bound = replace(free, grammar=ALL_TEXT)
    pairs = [(rate(engine, free)[0], rate(engine, bound)[0]) for _ in range(rounds + 1)][1:]
    ratio = statistics.median(constrained / plain for plain, constrained in pairs)
    print(f"tokens a second at {AT_ONCE}, bound over free: {ratio:.3f} (median of {rounds} pairs; target 0.9)")


def saving(engine: Engine) -> None:
    """JSON with what must be written added without a step, and with a step for each token."""
    params = SamplingParams(temperature=1.0, max_tokens=200, grammar=Grammar.json_schema(RECORD))
    jumped, tokens, few = rate(engine, params)
    walked, same, many = rate(engine, replace(params, logprobs=0))
    assert tokens == same
    print(f"{tokens} tokens of JSON in {few} steps instead of {many}: {1 - few / many:.0%} saved (target 20 %)")
    print(f"tokens a second: {jumped:,.0f} instead of {walked:,.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="rows with a schema, one JSON object per line")
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--rounds", type=int, default=5, help="pairs of runs that are compared")
    parser.add_argument("--max-tokens", type=int, default=900, help="of an answer under a wild schema")
    options = parser.parse_args()
    engine = Engine.from_pretrained(options.model, dtype="bfloat16", kv_cache_tokens=65_536, prefix_caching=False)
    with gzip.open(options.data, "rt", encoding="utf-8") as lines:
        tokenizer = Tokenizer.from_directory(options.model)
        hold(
            engine, tokenizer.grammar_compiler(tokenizer.size), [json.loads(line) for line in lines], options.max_tokens
        )
    cost(engine, options.rounds)
    saving(engine)


if __name__ == "__main__":
    main()
