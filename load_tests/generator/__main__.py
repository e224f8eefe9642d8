"""``python -m load_tests.generator``: load an OpenAI-compatible endpoint and check every answer."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from load_tests.generator.options import LoadOptions
from load_tests.generator.plot import draw
from load_tests.generator.prompts import builtin_prompts, read_prompts
from load_tests.generator.report import table
from load_tests.generator.session import run
from load_tests.generator.target import Target

DESCRIPTION = """\
Load an OpenAI-compatible endpoint and check every answer.

Closed loop:  --concurrency N   N streams, each asks again once it is answered
Open loop:    --rate R          Poisson arrivals, R per second, whether or not answers keep up

Every answer must end with a finish_reason, usage and [DONE], without an error frame and within max_tokens. With
--verify-alone each prompt is first asked alone, and under load must then get the same text, byte for byte.
The exit code is 0 only if every answer was good.
"""

EPILOG = """\
examples:
  python -m load_tests.generator --concurrency 64 --duration 20 --verify-alone
  python -m load_tests.generator --rate 30 --duration 60 --model auto --json run.json --plot run.png
  python -m load_tests.generator --requests 500 --max-tokens 32 --ignore-eos --no-stream
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = make_parser()
    try:
        options = read_options(parser.parse_args(arguments))
    except (ValueError, OSError) as error:
        parser.error(str(error))
    session = asyncio.run(run(options))
    print(table(session.report))
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(session.report.json(), indent=2) + "\n", encoding="utf-8")
    if options.plot is not None:
        kind = f"{options.concurrency} streams" if options.rate is None else f"{options.rate:g} requests/s"
        title = f"{options.model}, {kind}: {session.report.tokens_per_s:,.0f} tokens/s"
        draw(session.answers, session.report, session.start, title, options.plot)
    return 0 if session.report.clean else 1


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m load_tests.generator",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--url", default="http://127.0.0.1:8000/v1", help="base URL (default: %(default)s)")
    add("--key", default="sk-manta-dev", help="API key (default: the one of dev.yaml)")
    add("--model", default="fast", help="(default: %(default)s)")
    add("--allow-remote", action="store_true", help="allow a host that is not this machine; be sure you may")
    add("--concurrency", type=int, default=8, help="streams of the closed loop (default: %(default)s)")
    add("--rate", type=float, help="requests per second: open loop instead")
    add("--duration", type=float, default=10.0, help="seconds during which requests start (default: %(default)s)")
    add("--requests", type=int, help="at most so many requests")
    add("--max-tokens", type=int, default=64, help="of each answer (default: %(default)s)")
    add("--temperature", type=float, default=0.0, help="(default: %(default)s, greedy)")
    add("--prompts", type=Path, help="one prompt per line, or .jsonl with 'prompt' (default: 64 built-in ones)")
    add("--ignore-eos", action="store_true", help="every answer must then have exactly max-tokens tokens")
    add("--stream", action=argparse.BooleanOptionalAction, default=True, help="SSE, or one JSON document")
    add("--verify-alone", action="store_true", help="first ask each prompt alone, then demand the same text")
    add("--seed", type=int, default=0, help="of the arrivals (default: %(default)s)")
    add("--timeout", type=float, default=120.0, help="seconds for one answer (default: %(default)s)")
    add("--slo-ttft-ms", type=float, default=1000.0, help="goodput: first token within (default: %(default)s)")
    add("--slo-itl-ms", type=float, default=100.0, help="goodput: mean time per token within (default: %(default)s)")
    add("--server-pid", type=int, action="append", default=[], help="count the CPU time of this process and its tree")
    add("--json", type=Path, metavar="OUT", help="write the report")
    add("--plot", type=Path, metavar="OUT.png", help="draw latencies and throughput")
    add("--no-progress", dest="progress", action="store_false", help="no progress bar")
    return parser


def read_options(parsed: argparse.Namespace) -> LoadOptions:
    """Raises ValueError or OSError for what cannot be run."""
    return LoadOptions(
        target=Target.of(parsed.url, parsed.key, parsed.allow_remote),
        model=parsed.model,
        prompts=tuple(read_prompts(parsed.prompts) if parsed.prompts else builtin_prompts()),
        concurrency=parsed.concurrency,
        rate=parsed.rate,
        duration=parsed.duration,
        requests=parsed.requests,
        max_tokens=parsed.max_tokens,
        temperature=parsed.temperature,
        stream=parsed.stream,
        ignore_eos=parsed.ignore_eos,
        verify_alone=parsed.verify_alone,
        seed=parsed.seed,
        timeout_s=parsed.timeout,
        slo_ttft_s=parsed.slo_ttft_ms / 1000,
        slo_itl_s=parsed.slo_itl_ms / 1000,
        server_pids=tuple(parsed.server_pid),
        json=parsed.json,
        plot=parsed.plot,
        progress=parsed.progress,
    )


if __name__ == "__main__":
    sys.exit(main())
