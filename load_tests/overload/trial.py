"""One load of a server: sends what is offered, and counts what came in time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cluster.process_memory import spare_collector
from load_tests.generator.answer import Answer, Problem
from load_tests.generator.client import Client
from load_tests.generator.target import Target
from load_tests.overload.traffic import CLASSES, Offered, key_of, request_bytes

LATE_S = 1.0
"""Who is refused later than this was admitted before."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one request. ``ttft_s``, ``refused_s`` (until a 429) and ``unavailable_s`` (until a 503) are
    seconds from its instant; None: there was none. A 503 is a problem too."""

    offered: Offered
    ttft_s: float | None = None
    refused_s: float | None = None
    problem: str = ""
    unavailable_s: float | None = None

    @property
    def good(self) -> bool:
        """Whether its answer is whole and its first token came within the objective."""
        return not self.problem and self.ttft_s is not None and self.ttft_s <= self.offered.traffic.objective_s


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of a load over ``seconds``. Rates are per second, times in seconds; None: there was none."""

    offered: float
    goodput: float
    goodput_by_class: dict[str, float]
    ttft_p99_by_class: dict[str, float | None]
    admitted: int
    refused: int
    refused_late: int  # after more than a second: it was admitted, and is refused, or there is no replica for it (503)
    refusal_p99_s: float | None
    failed: int  # neither an answer nor a 429

    def json(self) -> dict[str, Any]:
        return asdict(self)


async def offer(
    url: str, requests: Sequence[Offered], on_outcome: Callable[[Outcome], None], give_up_s: float = 90.0
) -> list[Outcome]:
    """Sends ``requests`` at their instants and returns what became of them. ``on_outcome`` is called with each. A
    request that has no whole answer after ``give_up_s`` seconds is given up, and has failed."""
    targets = {tenant: Target.of(url, key_of(tenant)) for tenant in {one.tenant for one in requests}}
    bodies = [request_bytes(targets[one.tenant], one) for one in requests]
    spare_collector()  # a pause of this process would count as one of the service
    client = Client(next(iter(targets.values())), timeout_s=give_up_s, stream=True)
    begin = client.now()

    async def send(one: Offered, body: bytes) -> Outcome:
        outcome = outcome_of(one, await client.ask(0, body), begin)
        on_outcome(outcome)
        return outcome

    tasks = []
    for one, body in zip(requests, bodies, strict=True):
        if (wait := begin + one.at - client.now()) > 0:
            await asyncio.sleep(wait)
        tasks.append(asyncio.create_task(send(one, body)))
    outcomes = list(await asyncio.gather(*tasks))
    client.close()
    return outcomes


def outcome_of(one: Offered, answer: Answer, begin: float) -> Outcome:
    """Returns what became of a request. Its time begins when it was to be sent, as for a person who waits."""
    since = begin + one.at
    if answer.problem is Problem.STATUS and answer.detail.startswith("429"):
        return Outcome(one, refused_s=answer.ended - since)
    first = answer.times[0] - since if answer.times else None
    problem = "" if answer.problem is None else f"{answer.problem} {answer.detail}"
    unavailable = answer.problem is Problem.STATUS and answer.detail.startswith("503")
    return Outcome(one, ttft_s=first, problem=problem, unavailable_s=answer.ended - since if unavailable else None)


def figures_of(outcomes: Sequence[Outcome], seconds: float) -> Figures:
    """Returns the figures of a load that was offered for ``seconds``."""
    by_class = {each.name: [one for one in outcomes if one.offered.traffic is each] for each in CLASSES}
    refused = [one.refused_s for one in outcomes if one.refused_s is not None]
    unavailable = [one.unavailable_s for one in outcomes if one.unavailable_s is not None]
    return Figures(
        offered=len(outcomes) / seconds,
        goodput=sum(one.good for one in outcomes) / seconds,
        goodput_by_class={name: sum(one.good for one in own) / seconds for name, own in by_class.items()},
        ttft_p99_by_class={
            name: percentile([one.ttft_s for one in own if one.ttft_s is not None], 0.99)
            for name, own in by_class.items()
        },
        admitted=len(outcomes) - len(refused),
        refused=len(refused),
        refused_late=sum(each > LATE_S for each in (*refused, *unavailable)),
        refusal_p99_s=percentile(refused, 0.99),
        failed=sum(bool(one.problem) for one in outcomes),
    )


def percentile(values: Sequence[float], share: float) -> float | None:
    """Returns the value that ``share`` of ``values`` do not exceed; None without values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None
