"""``python -m load_tests.safety.streams``: what leaks through the guard in streams, and what is held back."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from load_tests.safety.measured_classifier import KINDS, MeasuredClassifier, classifier_of
from load_tests.safety.measured_guard import HoldBack, MeasuredGuard
from load_tests.safety.planted import PHRASES, PlantedText, Planter
from load_tests.safety.quantiles import quantiles
from load_tests.safety.scripted_backend import Received, Script, ScriptedBackend, post, running
from router.app_factory import build_app
from router.config.keys import KeyConfig
from router.config.router import RouterConfig
from router.router_ports import MakeGuard, RouterPorts
from safety.api import TextClassifier
from safety.score_memory import RememberingClassifier

DESCRIPTION = """\
Streams answers with planted e-mail addresses, cards, keys and blocklisted phrases in disguise, cut into deltas at
random, through the router: chat, completions, tool calls, three choices; every fourth one not as a stream. Compares
what the client gets with what it may get, to the byte: filler as it was, a mark in place of what is redacted, nothing
from a phrase on. The model is a script, so that the answers are known. "scanners" has patterns and phrases alone;
"hold" and "beside" also have a classifier, whose verdicts do not count. With --classifier timed it takes --check-ms,
however many calls there are at once; "in-process" is the shipped model on a thread beside the streams, "deployment" the
same in a process of its own, on a Ray cluster that is started for it, as in production. "none" has no guard, for
comparison: its problems show that a leak would be seen. Exits with 1 if anything leaked or changed under a guard.
"""

KEY = "sk-streams"
CONFIG = RouterConfig(keys=(KeyConfig(key=KEY, tenant="acme", team="core"),), max_concurrent_requests=4096)
TOOL = {"type": "function", "function": {"name": "send", "parameters": {"type": "object", "properties": {}}}}
HEAD, TAIL = '<tool_call>\n{"name": "send", "arguments": ', "}\n</tool_call>"

Form = Literal["chat", "completions", "tools", "n=3"]
FORMS: Sequence[Form] = ("chat", "completions", "tools", "n=3")
MODES = ("none", "scanners", "hold", "beside")


@dataclass(frozen=True, slots=True)
class Case:
    """One request: its form, its planted texts (one for each choice), and the pieces that the model writes."""

    name: str
    form: Form
    stream: bool
    texts: Sequence[PlantedText]
    pieces: Sequence[Sequence[str]]

    @property
    def path(self) -> str:
        return "/v1/completions" if self.form == "completions" else "/v1/chat/completions"

    @property
    def body(self) -> dict[str, Any]:
        """The request."""
        asked: dict[str, Any] = {"model": "fast", "stream": self.stream}
        if self.stream:
            asked["stream_options"] = {"include_usage": True}
        if self.form == "completions":
            return asked | {"prompt": self.name}
        asked["messages"] = [{"role": "user", "content": self.name}]
        return asked | ({"tools": [TOOL]} if self.form == "tools" else {"n": 3} if self.form == "n=3" else {})


@dataclass(slots=True)
class Outcome:
    """What became of the requests of one mode. Times in milliseconds, hold-back in characters too."""

    mode: str
    answers: int = 0
    halted: int = 0
    planted: dict[str, int] = field(default_factory=dict)  # by kind
    problems: list[str] = field(default_factory=list)
    hold_back: HoldBack | None = None
    check_ms: dict[str, float] = field(default_factory=dict)
    ttft_ms: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    cpu_us_per_delta: float = 0.0


def cases(count: int, seed: int) -> list[Case]:
    """Returns ``count`` answers in requests of all forms; one answer in five halts."""
    planter, draw, answers = Planter(seed), random.Random(seed), 0
    made: list[Case] = []
    while answers < count:
        form, stream = FORMS[len(made) % len(FORMS)], draw.random() < 0.75
        texts = []
        for _ in range(3 if form == "n=3" else 1):
            make = planter.arguments if form == "tools" else planter.text
            texts.append(make(draw.randint(20, 120), draw.randint(0, 4), draw.random() < 0.2))
        whole = [f"{HEAD}{text.whole}{TAIL}" if form == "tools" else text.whole for text in texts]
        made.append(Case(f"answer {len(made)}", form, stream, texts, [planter.pieces(each) for each in whole]))
        answers += len(texts)
    return made


def answers_of(case: Case, received: Received) -> tuple[dict[int, str], dict[int, str], list[str]]:
    """Returns the text and the finish reason of each choice, and what is wrong with the response as a whole."""
    texts: dict[int, str] = {}
    reasons: dict[int, str] = {}
    problems = [] if received.status == 200 else [f"status {received.status}: {received.body[:200]}"]
    if not case.stream:
        choices = json.loads(received.body).get("choices", [])
        documents = [{"choices": choices, "usage": json.loads(received.body).get("usage")}]
    else:
        frames = (each for each in received.body.split("\n\n") if each and not each.startswith(":"))
        lines = [frame.removeprefix("data: ") for frame in frames]
        if lines[-1:] != ["[DONE]"]:
            problems.append(f"no [DONE]: {lines[-1:]}")
        documents = [json.loads(line) for line in lines if line != "[DONE]"]
    if not (documents and documents[-1].get("usage")):
        problems.append("no usage")
    for choice in (choice for document in documents for choice in document.get("choices", ())):
        index, message = choice["index"], choice.get("delta") or choice.get("message") or {}
        content = choice.get("text") or message.get("content") or ""
        calls = message.get("tool_calls") or ()
        if case.form == "tools":
            if content:
                problems.append(f"content beside a call: {content!r}")
            content = "".join(call["function"]["arguments"] for call in calls)
        texts[index] = texts.get(index, "") + content
        if choice["finish_reason"] is not None:
            reasons[index] = choice["finish_reason"]
    return texts, reasons, problems


def problems_of(case: Case, script: Script, received: Received) -> list[str]:
    """Returns all that is wrong with the response to ``case``."""
    texts, reasons, problems = answers_of(case, received)
    for choice, text in enumerate(case.texts):
        if (problem := text.problem(texts.get(choice, ""))) is not None:
            problems.append(problem)
        expected = "content_filter" if text.halts else "tool_calls" if case.form == "tools" else "stop"
        if reasons.get(choice) != expected:
            problems.append(f"ended with {reasons.get(choice)} instead of {expected}")
    if all(text.halts for text in case.texts) and not script.aborted:
        problems.append("the engine was not stopped")
    return [f"{case.name} ({case.form}): {problem}" for problem in problems]


async def run(mode: str, made: Sequence[Case], options: argparse.Namespace, classifier: TextClassifier) -> Outcome:
    """Sends all requests, ``options.streams`` at a time, and returns what became of them."""
    scripts = {case.name: Script(case.pieces) for case in made}
    measured = MeasuredClassifier(classifier)
    guard = None if mode == "none" else MeasuredGuard(PHRASES, mode, RememberingClassifier(measured))
    backend = ScriptedBackend(scripts, options.pace_ms / 1000)
    make_guard: MakeGuard | None = None if guard is None else (lambda _oversight, _store: guard)
    app = build_app(CONFIG, backend, RouterPorts(make_guard=make_guard))
    outcome, waiting = Outcome(mode), iter(made)
    first: list[float] = []

    async def worker(starts_in_s: float) -> None:
        await asyncio.sleep(starts_in_s)
        for case in waiting:
            received = await post(app, case.path, KEY, case.body)
            script = scripts[case.name]
            if case.stream:
                first.append(1000 * (first_text_at(case, received) - script.begun_at))
            outcome.problems += problems_of(case, script, received)
            outcome.answers += len(case.texts)
            outcome.halted += sum(text.halts for text in case.texts)

    started, cpu = time.perf_counter(), time.process_time()
    async with running(app):
        await asyncio.gather(*map(worker, starts_s(made, options)))
    outcome.seconds = round(time.perf_counter() - started, 2)
    deltas = sum(len(pieces) for case in made for pieces in case.pieces)
    outcome.cpu_us_per_delta = round(1e6 * (time.process_time() - cpu) / deltas, 1)
    outcome.ttft_ms = quantiles(first)
    outcome.planted = dict(Counter(part.kind for case in made for text in case.texts for part in text.planted))
    outcome.hold_back = None if guard is None else guard.hold_back()
    outcome.check_ms = measured.ms()
    return outcome


def starts_s(made: Sequence[Case], options: argparse.Namespace) -> list[float]:
    """Returns when each stream begins, in seconds: one after the other over the time of an answer, as where streams
    come and go. Streams in step would all ask for their checks at once."""
    longest = [max(map(len, case.pieces)) for case in made]
    answer_s = sum(longest) / len(longest) * options.pace_ms / 1000
    return [answer_s * stream / options.streams for stream in range(options.streams)]


async def run_all(made: Sequence[Case], options: argparse.Namespace, classifier: TextClassifier) -> list[Outcome]:
    """Returns the outcomes of all modes, one after the other, on one event loop, to which a classifier belongs."""
    outcomes = []
    await classifier.classify(["not measured: the first call takes longer"])
    for mode in options.modes:
        print(f"{mode} ...", file=sys.stderr)
        outcomes.append(await run(mode, made, options, classifier))
    return outcomes


def first_text_at(case: Case, received: Received) -> float:
    """Returns when the first event with text was sent; if there was none, when the last was."""
    names = (b'"text":"', b'"content":"', b'"arguments":"')
    for at, piece in received.pieces:
        if any(name in piece and piece.count(name + b'"') < piece.count(name) for name in names):
            return at
    return received.pieces[-1][0]


def table(outcomes: Sequence[Outcome]) -> str:
    """Returns the outcomes as a table."""
    head = (
        "guard",
        "answers",
        "problems",
        "held chars p50/p99",
        "held ms p50/p99",
        "check ms p50/p99",
        "TTFT ms p50/p99",
        "CPU us/delta",
    )
    rows: list[tuple[str, ...]] = [head]
    for each in outcomes:
        held = each.hold_back
        characters, times = ("-", "-") if held is None else (pair(held.characters), pair(held.ms))
        cells = (
            each.mode,
            each.answers,
            len(each.problems),
            characters,
            times,
            pair(each.check_ms),
            pair(each.ttft_ms),
            each.cpu_us_per_delta,
        )
        rows.append(tuple(map(str, cells)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def pair(values: Mapping[str, float]) -> str:
    """Returns the median and the 99th percentile as text."""
    return f"{values['p50']:g} / {values['p99']:g}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the measurement. Returns 1 if anything leaked or changed."""
    parser = argparse.ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=2000, help="answers of each mode (default: 2000)")
    parser.add_argument("--streams", type=int, default=32, help="requests at the same time (default: 32)")
    parser.add_argument("--pace-ms", type=float, default=5.0, help="milliseconds between two deltas (default: 5)")
    parser.add_argument("--classifier", choices=KINDS, default="timed", help="of hold and beside (default: timed)")
    parser.add_argument("--check-ms", type=float, default=12.0, help="of the timed classifier (default: 12)")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES, help="the guards to be measured")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="a file for the figures")
    options = parser.parse_args(arguments)
    made = cases(options.answers, options.seed)
    with classifier_of(options.classifier, options.check_ms / 1000) as classifier:
        outcomes = asyncio.run(run_all(made, options, classifier))
    print(table(outcomes))
    problems = [problem for outcome in outcomes if outcome.mode != "none" for problem in outcome.problems]
    for problem in problems[:20]:
        print(problem)
    if options.json:
        options.json.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=2) + "\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
