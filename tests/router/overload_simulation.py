"""The real admission in front of the engine's real scheduler, on a virtual clock: a step costs a fixed time and some
more per token, which is about what engines do."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from engine.api import Priority
from engine.scheduler.limits import Limits
from engine.scheduler.scheduler import Scheduler
from engine.sequence import Sequence as EngineSequence
from router.admission.admission import Admission, Place
from router.admission.admission_decision import RequestFacts
from router.config import AdmissionConfig
from router.errors import AdmissionRefusedError
from router.ports.replica_load import ReplicaLoad
from router.ports.tier_backend import TierSnapshot
from router.ports.usage_metrics import NoUsageMetrics
from tests.engine.sequences import finish_step, scheduler
from tests.engine.sequences import sequence as new_sequence

STEP_S, TOKEN_S = 0.01, 0.0004  # seconds of a step, and of each of its tokens


class VirtualClock:
    """Time that goes on only when it is set."""

    def __init__(self) -> None:
        self.time = 100.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


@dataclass
class Arrival:
    """One request of the offered load, and what became of it."""

    at: float
    tenant: str
    priority: Priority
    prompt: int
    output: int
    refused: AdmissionRefusedError | None = None
    ttft_s: float | None = None
    ended: bool = False
    place: Place | None = None


@dataclass
class Mix:
    """A part of the offered load: Poisson arrivals of one tenant and class, with lengths drawn between bounds."""

    tenant: str
    priority: Priority
    rate: float  # requests per second
    prompt: tuple[int, int] = (16, 160)
    output: tuple[int, int] = (4, 32)

    def arrivals(self, seconds: float, draw: random.Random) -> Iterator[Arrival]:
        """The arrivals of the first ``seconds``."""
        at = draw.expovariate(self.rate)
        while at < seconds:
            yield Arrival(at, self.tenant, self.priority, draw.randint(*self.prompt), draw.randint(*self.output))
            at += draw.expovariate(self.rate)


@dataclass
class Simulation:
    """One tier with one replica. ``admission`` None: everything is queued, as without admission."""

    config: AdmissionConfig | None
    limits: Limits = field(
        default_factory=lambda: Limits(batch_tokens=256, prefill_chunk=128, sequences=32, ageing_s=30.0)
    )
    seed: int = 7

    def run(self, mixes: Sequence[Mix], seconds: float, drain_s: float = 60.0) -> list[Arrival]:
        """Offers the load for ``seconds``, and goes on until all has ended or ``drain_s`` have passed."""
        draw = random.Random(self.seed)
        offered = sorted((one for mix in mixes for one in mix.arrivals(seconds, draw)), key=lambda one: one.at)
        clock = VirtualClock()
        begin = clock.time
        subject = scheduler(blocks=1024, prefix_caching=False, limits=self.limits)
        admission = Admission(self.config or AdmissionConfig(enabled=False), clock, NoUsageMetrics())
        running: dict[str, tuple[Arrival, EngineSequence]] = {}
        waiting = iter(enumerate(offered))
        following = next(waiting, None)
        while clock.time < begin + seconds + drain_s and (following is not None or running):
            while following is not None and begin + following[1].at <= clock.time:
                number, one = following
                following = next(waiting, None)
                facts = RequestFacts(one.tenant, one.priority, 1, one.prompt, one.output)
                try:
                    one.place = admission.enter(facts, "fast", ["fast"], [_report(subject)], str(number))
                except AdmissionRefusedError as error:
                    one.refused = error
                    continue
                made = new_sequence(
                    str(number), [number % 997 + 2] * one.prompt, one.output, "", one.tenant, one.priority, clock.time
                )
                objective_s = one.place.ttft_s
                made.objective = None if objective_s is None else clock.time + objective_s
                subject.add(made)
                running[made.request_id] = one, made
            plan = subject.schedule(clock.time)
            if not plan.chunks:
                clock.time = max(clock.time + 0.001, begin + following[1].at if following is not None else 0.0)
                continue
            clock.time += STEP_S + TOKEN_S * plan.tokens
            finish_step(subject, plan)
            for chunk in plan.chunks:
                name = chunk.sequence.request_id
                one, made = running[name]
                if one.ttft_s is None and made.generated:
                    one.ttft_s = clock.time - begin - one.at
                    assert one.place is not None
                    one.place.started()
                if made.generated >= made.max_tokens:
                    one.ended = True
                    del running[name]
        return offered


def _report(subject: Scheduler) -> TierSnapshot:
    """What the replica reports: as the engine does after each step."""
    short, long = subject.queued_tokens()
    limits = subject.limits
    load = ReplicaLoad(
        len(subject.running),
        subject.waiting.requests,
        decoding=subject.decoding,
        queued_short=short,
        queued_long=long,
        step_s=STEP_S,
        prompt_token_s=TOKEN_S,
        sequence_s=TOKEN_S,
        step_tokens=limits.batch_tokens,
        prefill_chunk=limits.prefill_chunk,
        max_sequences=limits.sequences,
        output_tokens=18.0,
        kv_capacity_tokens=4096.0,
    )
    return TierSnapshot("fast", frozenset({"one"}), waiting=load.waiting, loads={"one": load})


def percentile(values: Sequence[float], share: float) -> float:
    """The value that ``share`` of ``values`` do not exceed; 0 without values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
