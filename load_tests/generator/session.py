"""A whole run: alone first if asked for, then the load, then the report."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tqdm import tqdm

from load_tests.cpu import CpuMeter, own_cpu_seconds
from load_tests.generator.answer import Answer
from load_tests.generator.client import Client
from load_tests.generator.load import Load
from load_tests.generator.options import LoadOptions
from load_tests.generator.report import Cost, Report, make_report


@dataclass(frozen=True, slots=True)
class Session:
    """What a run left behind. ``start`` is when the load began, on the clock of the answers."""

    answers: list[Answer]
    report: Report
    start: float


async def run(options: LoadOptions) -> Session:
    """Runs the load and reports on it.

    If a prompt already fails alone, the load is not run and the report is about the prompts alone.
    """
    client = Client(options.target, timeout_s=options.timeout_s, stream=options.stream)
    try:
        if options.verify_alone:
            return await _verified(options, client)
        answers: list[Answer] = []
        with Progress(options, answers) as progress:
            return await _measured(options, client, Load(options, client, progress.add), answers)
    finally:
        client.close()


async def _verified(options: LoadOptions, client: Client) -> Session:
    alone: list[Answer] = []
    start = client.now()
    with Progress(options, alone, alone=True) as progress:
        references = await Load(options, client, progress.add).alone()
    if references is None:
        report = make_report(alone, client.now() - start, options, Cost(own_cpu_seconds(), None), False)
        return Session(alone, report, start)
    answers: list[Answer] = []
    with Progress(options, answers) as progress:
        return await _measured(options, client, Load(options, client, progress.add, references), answers)


async def _measured(options: LoadOptions, client: Client, load: Load, answers: list[Answer]) -> Session:
    start = client.now()
    own = own_cpu_seconds()
    meter = CpuMeter(options.server_pids)
    seconds = await load.run()
    cost = Cost(own_cpu_seconds() - own, meter.seconds() if options.server_pids else None)
    return Session(answers, make_report(answers, seconds, options, cost, options.verify_alone), start)


class Progress(AbstractContextManager["Progress"]):
    """Collects answers into ``answers`` and shows how far the run is."""

    def __init__(self, options: LoadOptions, answers: list[Answer], alone: bool = False) -> None:
        self._answers = answers
        self._alone = alone
        self._bad = 0
        self._tokens = 0
        total = len(options.prompts) if alone else options.requests
        name = "alone" if alone else "load"
        self._bar = tqdm(desc=name, total=total, unit="req", disable=not options.progress, mininterval=0.5)

    def add(self, answer: Answer) -> None:
        """Takes one answer."""
        self._answers.append(answer)
        if not self._alone:
            answer.text = ""  # it has been checked; thousands of them are not needed any more
        self._bad += answer.problem is not None
        self._tokens += answer.tokens
        if self._bar.update():
            elapsed = self._bar.format_dict["elapsed"] or 1.0
            self._bar.set_postfix_str(f"{self._tokens / elapsed:,.0f} tokens/s, {self._bad} failed", refresh=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
