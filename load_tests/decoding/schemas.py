"""JSON schemas from the wild: which compile, how fast, and whether they accept what they should and nothing else.

    python -m load_tests.decoding.schemas

Every instance that comes with a schema is written as the engine would write it and put to the grammar token by token.
Prints the schemas that are refused and the instances that are judged wrongly.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from engine.api import Grammar, RequestError
from engine.decode.grammar import GrammarCompiler, GrammarError
from engine.tokenizer import Tokenizer

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "deployments" / "models" / "fast"
DATA = ROOT.parent / "shared" / "data" / "json_schema" / "maskbench_600.jsonl.gz"
PATIENCE_S = 2.0  # for one schema


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of one instance. ``told``: whether it is valid, as the data say."""

    told: bool
    accepted: bool


def accepts(compiler: GrammarCompiler, tokenizer: Tokenizer, grammar: Grammar, instance: Any) -> bool:
    """Whether the grammar lets ``instance`` be said."""
    state = compiler.compile(grammar, 0)
    tokens = tokenizer.encode(json.dumps(instance, ensure_ascii=False))
    try:
        state.read(tokens)
    except GrammarError:
        return False
    return bool(state.matcher.is_accepting())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="rows with schema and tests, one JSON object per line")
    parser.add_argument("--model", type=Path, default=MODEL, help="whose tokenizer")
    options = parser.parse_args()
    tokenizer = Tokenizer.from_directory(options.model)
    compiler = tokenizer.grammar_compiler(tokenizer.size)
    compiler.compile(Grammar.json_object(), 0)  # the vocabulary is read once, with the first
    with gzip.open(options.data, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    refused: dict[str, str] = {}
    seconds: list[float] = []
    verdicts: Counter[Verdict] = Counter()
    wrong: list[str] = []
    for row in tqdm(rows, unit=" schemas"):
        grammar = Grammar.json_schema(row["schema"])
        began = time.perf_counter()
        try:
            compiler.compile(grammar, 0)
        except RequestError as error:
            refused[row["name"]] = error.message
        seconds.append(time.perf_counter() - began)
        for number, test in enumerate(() if row["name"] in refused else row["tests"]):
            verdict = Verdict(test["valid"], accepts(compiler, tokenizer, grammar, test["data"]))
            verdicts[verdict] += 1
            if verdict.told != verdict.accepted:
                wrong.append(f"{row['name']}[{number}] {'accepted' if verdict.accepted else 'rejected'}")
    for name, why in refused.items():
        print(f"refused {name}: {why}")
    for line in wrong:
        print(f"wrongly {line}")
    in_time = sum(each < PATIENCE_S for each in seconds)
    print(f"{len(rows)} schemas: {len(rows) - len(refused)} compiled, {len(refused)} refused with a reason")
    print(f"in less than {PATIENCE_S:g} s: {in_time / len(rows):.1%}; slowest {max(seconds):.3f} s")
    print(f"valid instances accepted: {verdicts[Verdict(True, True)]} of {told(verdicts, True)}")
    print(f"invalid instances rejected: {verdicts[Verdict(False, False)]} of {told(verdicts, False)}")


def told(verdicts: Counter[Verdict], valid: bool) -> int:
    """Instances that the data say are so."""
    return sum(count for verdict, count in verdicts.items() if verdict.told is valid)


if __name__ == "__main__":
    main()
