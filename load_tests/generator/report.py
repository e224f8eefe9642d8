"""From answers to figures: a Report, its JSON and its table."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from load_tests.generator.answer import Answer
from load_tests.generator.options import LoadOptions
from load_tests.generator.stats import Summary, rate_over_time

EXAMPLES = 10  # of failures


@dataclass(frozen=True, slots=True)
class Failure:
    """One answer that had a problem."""

    prompt: int
    problem: str
    detail: str


@dataclass(frozen=True, slots=True)
class Report:
    """A run in figures; times in seconds. Latencies and tokens are those of good answers.

    ``itl`` is between frames that carry text, ``tpot`` the mean time per token after the first of each answer. Goodput
    counts good answers within both service levels (TTFT, and ``tpot`` for the inter-token latency).
    """

    seconds: float
    requests: int
    good: int
    problems: dict[str, int]
    failures: list[Failure]  # the first few
    mismatched_prompts: list[int]
    ttft: Summary
    itl: Summary
    tpot: Summary
    total: Summary
    tokens: int
    prompt_tokens: int
    tokens_per_s: float
    requests_per_s: float
    goodput_per_s: float
    slo_ttft_s: float
    slo_itl_s: float
    generator_cpu_s: float
    server_cpu_s: float | None
    compared_with_alone: bool

    @property
    def clean(self) -> bool:
        """Whether there were answers and not one had a problem."""
        return self.requests > 0 and self.good == self.requests

    def json(self) -> dict[str, Any]:
        """For json.dump: NaN, which JSON lacks, becomes null."""
        return {key: _plain(value) for key, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU seconds that a run took."""

    generator_s: float
    server_s: float | None


def make_report(answers: Sequence[Answer], seconds: float, options: LoadOptions, cost: Cost, compared: bool) -> Report:
    """The figures of ``answers``, which took ``seconds`` altogether."""
    good = [answer for answer in answers if answer.problem is None]
    bad = [answer for answer in answers if answer.problem is not None]
    tokens = sum(answer.tokens for answer in good)
    in_time = [a for a in good if ttft(a) <= options.slo_ttft_s and not tpot(a) > options.slo_itl_s]
    problems = Counter(str(answer.problem) for answer in bad)
    return Report(
        seconds=seconds,
        requests=len(answers),
        good=len(good),
        problems=dict(problems.most_common()),
        failures=[Failure(answer.prompt, str(answer.problem), answer.detail) for answer in bad[:EXAMPLES]],
        mismatched_prompts=sorted({answer.prompt for answer in bad if answer.problem == "mismatch"}),
        ttft=Summary.of(ttft(answer) for answer in good if answer.times),
        itl=Summary.of(gaps(good)),
        tpot=Summary.of(value for answer in good if not math.isnan(value := tpot(answer))),
        total=Summary.of(answer.ended - answer.started for answer in good),
        tokens=tokens,
        prompt_tokens=sum(answer.prompt_tokens for answer in good),
        tokens_per_s=tokens / seconds,
        requests_per_s=len(good) / seconds,
        goodput_per_s=len(in_time) / seconds,
        slo_ttft_s=options.slo_ttft_s,
        slo_itl_s=options.slo_itl_s,
        generator_cpu_s=cost.generator_s,
        server_cpu_s=cost.server_s,
        compared_with_alone=compared,
    )


def ttft(answer: Answer) -> float:
    """Seconds to the first text; to the end for an answer without any."""
    return (answer.times[0] if answer.times else answer.ended) - answer.started


def tpot(answer: Answer) -> float:
    """Mean seconds per token after the first; NaN when there are fewer than two frames."""
    if len(answer.times) < 2 or answer.tokens < 2:
        return math.nan
    return (answer.times[-1] - answer.times[0]) / (answer.tokens - 1)


def gaps(answers: Iterable[Answer]) -> Iterator[float]:
    """Seconds between neighbouring frames of text."""
    for answer in answers:
        for before, after in pairwise(answer.times):
            yield after - before


def throughput(answers: Iterable[Answer], start: float, seconds: float, width: float) -> list[float]:
    """Tokens per second in bins of ``width`` seconds; an answer's tokens are spread evenly over its frames."""
    events = (
        (time - start, answer.tokens / len(answer.times)) for answer in answers for time in answer.times if answer.times
    )
    return rate_over_time(events, seconds, width)


def table(report: Report) -> str:
    """The report for a terminal."""
    lines = ["", f"{'':22}{'p50':>10}{'p90':>10}{'p99':>10}{'max':>10}{'mean':>10}"]
    rows = {
        "first token, ms": report.ttft,
        "between frames, ms": report.itl,
        "per token after, ms": report.tpot,
        "whole answer, ms": report.total,
    }
    for name, summary in rows.items():
        values = (summary.p50, summary.p90, summary.p99, summary.max, summary.mean)
        lines.append(f"{name:22}" + "".join(_cell(1000 * value) for value in values))
    lines += ["", *(f"{name:22}{value}" for name, value in _figures(report))]
    for failure in report.failures:
        lines.append(f"  prompt {failure.prompt}: {failure.problem}: {failure.detail}")
    return "\n".join(lines)


def _figures(report: Report) -> Iterator[tuple[str, str]]:
    yield "output", f"{report.tokens_per_s:,.1f} tokens/s ({report.tokens:,} tokens in {report.seconds:.1f} s)"
    yield "answers", f"{report.requests_per_s:,.2f} requests/s, {report.good:,} good of {report.requests:,}"
    level = f"TTFT <= {report.slo_ttft_s * 1000:g} ms, ITL <= {report.slo_itl_s * 1000:g} ms"
    yield "goodput", f"{report.goodput_per_s:,.2f} requests/s within {level}"
    cpu = f"generator {report.generator_cpu_s:.2f} s"
    if report.server_cpu_s is not None:
        per_thousand = 1000 * report.server_cpu_s / report.tokens if report.tokens else math.nan
        cpu += f", server {report.server_cpu_s:.2f} s ({per_thousand:.3f} s per 1,000 tokens)"
    yield "CPU", cpu
    yield "checked against", "the same prompts alone" if report.compared_with_alone else "the protocol only"
    for name, count in report.problems.items():
        yield f"FAILED: {name}", f"{count:,}"
    if report.mismatched_prompts:
        yield "prompts that differed", ", ".join(map(str, report.mismatched_prompts))


def _cell(value: float) -> str:
    return f"{'-':>10}" if math.isnan(value) else f"{value:>10,.1f}"


def _plain(value: Any) -> Any:
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return value
