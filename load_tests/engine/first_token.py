"""Time to the first token of a long prompt, tier by tier, through a service that runs.

    make serve PORT=8000
    python -m load_tests.engine.first_token --url http://127.0.0.1:8000/v1

Streams chats of about 900 tokens, one at a time, tiers in turns. Every prompt is new from its first word on, and
answers are sampled without a seed: neither the prefix cache nor the answer cache serves them. Several services,
``--url before=http://... --url after=http://...``, take turns too; so do two tenants of one service, whose policies
differ, with the same URL twice and ``--key`` for each.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path

from load_tests.generator.answer import Answer
from load_tests.generator.client import Client
from load_tests.generator.prompts import NOUNS
from load_tests.generator.report import ttft
from load_tests.generator.target import Target, chat_body

TIERS = ("fast", "balanced", "frontier", "general")
ANSWER = 16  # tokens
CALIBRATION = 100  # words
TIMEOUT_S = 120.0


class RefusedError(RuntimeError):
    """A request has failed; the message says how."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The answers of a tier of one service: prompt tokens as the service counted them, and milliseconds."""

    service: str
    tier: str
    prompt_tokens: float
    p50_ms: float
    least_ms: float
    most_ms: float
    requests: int

    @classmethod
    def of(cls, service: str, tier: str, answers: Sequence[Answer]) -> Measured:
        """Their medians, and the extremes."""
        times = [1000 * ttft(answer) for answer in answers]
        tokens = statistics.median(answer.prompt_tokens for answer in answers)
        return cls(service, tier, tokens, statistics.median(times), min(times), max(times), len(times))


class Service:
    """One service, asked one request at a time."""

    def __init__(self, name: str, url: str, key: str) -> None:
        self.name = name
        self._url, self._key = url, key
        self._target = Target.of(url, key)
        self._client = Client(self._target, timeout_s=TIMEOUT_S, stream=True)

    def tiers(self) -> list[str]:
        """The tiers that there are, weakest first."""
        request = urllib.request.Request(f"{self._url}/models", headers={"authorization": f"Bearer {self._key}"})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=TIMEOUT_S) as response:
            served = {model["id"] for model in json.load(response)["data"]}
        return [tier for tier in TIERS if tier in served]

    async def ask(self, tier: str, prompt: str) -> Answer:
        """Raises RefusedError unless text came."""
        body = chat_body(prompt, model=tier, max_tokens=ANSWER, temperature=1.0, stream=True, ignore_eos=True)
        answer = await self._client.ask(0, self._target.request(body))
        if answer.problem is not None or not answer.times:
            raise RefusedError(f"{self.name}, {tier}: {answer.problem or 'no text'} {answer.detail}")
        return answer

    def close(self) -> None:
        """Hangs up."""
        self._client.close()


def made_prompt(words: int, draw: random.Random) -> str:
    """Shuffled words, numbers of three digits among them: no two prompts share their first words.

    All nouns come equally often, so that prompts of as many words have nearly as many tokens.
    """
    nouns = [noun for _ in range(words // len(NOUNS) + 1) for noun in draw.sample(NOUNS, len(NOUNS))]
    return " ".join(f"{draw.randrange(100, 1000)}" if at % 4 == 0 else nouns[at] for at in range(words))


def words_for(tokens: int, short: tuple[int, int], long: tuple[int, int]) -> int:
    """The words of a prompt of ``tokens``, by two (words, prompt tokens): the chat format adds some to any prompt."""
    (few, least), (many, most) = short, long
    return round(few + (tokens - least) * (many - few) / (most - least))


async def calibrated(service: Service, tier: str, tokens: int, draw: random.Random) -> int:
    """The words of a prompt of ``tokens`` in the tokens of a tier. Warms it up."""
    short, long = [
        (words, (await service.ask(tier, made_prompt(words, draw))).prompt_tokens)
        for words in (CALIBRATION, 2 * CALIBRATION)
    ]
    return words_for(tokens, short, long)


async def measure(services: Sequence[Service], options: argparse.Namespace) -> list[Measured]:
    """Asks all tiers of all services in turns."""
    draw = random.Random()  # without a seed: a second run must not find the first one's prompts in a cache
    words: dict[tuple[Service, str], int] = {}
    for service in services:
        for tier in options.tiers or service.tiers():
            words[service, tier] = await calibrated(service, tier, options.tokens, draw)
    answers: dict[tuple[Service, str], list[Answer]] = {asked: [] for asked in words}
    for turn in range(options.rounds):
        print(f"round {turn + 1} of {options.rounds}", file=sys.stderr)
        for service, tier in draw.sample(list(words), len(words)):
            await asyncio.sleep(options.pause)
            answers[service, tier].append(await service.ask(tier, made_prompt(words[service, tier], draw)))
    return [Measured.of(service.name, tier, each) for (service, tier), each in answers.items()]


def table(found: Sequence[Measured]) -> str:
    """Markdown; with several services the ratio to the first one's time of the same tier."""
    first: Mapping[str, float] = {each.tier: each.p50_ms for each in reversed(found)}
    lines = ["| service | tier | prompt tokens | TTFT, median ms | least to most | of the first |"]
    lines.append("| --- | --- | ---: | ---: | ---: | ---: |")
    lines += [
        f"| {each.service} | {each.tier} | {each.prompt_tokens:,.0f} | {each.p50_ms:,.1f} "
        f"| {each.least_ms:,.1f} to {each.most_ms:,.1f} | {each.p50_ms / first[each.tier]:.2f} |"
        for each in found
    ]
    return "\n".join(lines)


def named(text: str) -> tuple[str, str]:
    """``after=http://...`` as name and URL; a URL alone is its own name."""
    name, equals, url = text.partition("=")
    return (name, url) if equals and "/" not in name else (text, text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--url", type=named, action="append", metavar="[NAME=]URL", help="base URL (default: http://127.0.0.1:8000/v1)")
    add("--key", action="append", help="API key, one for all URLs or one for each (default: the one of dev.yaml)")
    add("--tiers", nargs="+", help="(default: all that there are)")
    add("--tokens", type=int, default=900, help="of a prompt (default: %(default)s)")
    add("--rounds", type=int, default=10, help="(default: %(default)s)")
    add("--pause", type=float, default=0.3, help="seconds before each request (default: %(default)s)")
    add("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    urls, keys = options.url or [named("http://127.0.0.1:8000/v1")], options.key or ["sk-manta-dev"]
    if len(keys) not in (1, len(urls)):
        parser.error(f"{len(keys)} keys for {len(urls)} URLs: give one, or one for each URL")
    services = [Service(name, url, key) for (name, url), key in zip(urls, cycle(keys), strict=False)]
    try:
        found = asyncio.run(measure(services, options))
    except (RefusedError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(table(found))
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(each) for each in found], indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
