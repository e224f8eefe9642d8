"""The real admission in front of the engine's real scheduler, on a virtual clock.

A step costs STEP_S, and TOKEN_S more per token, which is about what engines do. Every sampled token is 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from engine.api import Priority, SamplingParams
from engine.kv.cache import KVCache
from engine.kv.shape import GroupShape
from engine.scheduler.limits import Limits
from engine.scheduler.scheduler import Scheduler
from engine.scheduler.step_plan import Plan
from engine.sequence import Sequence as EngineSequence
from load_tests.overload.traffic import Offered
from load_tests.overload.trial import Outcome
from router.admission.admission import Admission, Place
from router.admission.admission_decision import RequestFacts
from router.config.admission import AdmissionConfig
from router.errors import AdmissionRefusedError
from router.ports.replica_load import ReplicaLoad
from router.ports.tier_backend import TierSnapshot
from router.ports.usage_metrics import NoUsageMetrics

STEP_S, TOKEN_S = 0.01, 0.0004  # seconds of a step, and of each of its tokens
BLOCKS, BLOCK_SIZE = 4096, 16
MEAN_OUTPUT = 100.0  # tokens, as the replica reports it
REFUSAL_S = 0.001
LIMITS = Limits(batch_tokens=512, prefill_chunk=256, sequences=32, ageing_s=30.0)


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
    """One offered request, and what became of it."""

    offered: Offered
    refused: AdmissionRefusedError | None = None
    ttft_s: float | None = None
    ended: bool = False
    place: Place | None = None

    @property
    def priority(self) -> Priority:
        """Its scheduling class."""
        return Priority[self.offered.traffic.name.upper()]

    @property
    def outcome(self) -> Outcome:
        """What a client would have counted."""
        if self.refused is not None:
            return Outcome(self.offered, refused_s=REFUSAL_S)
        return Outcome(self.offered, self.ttft_s, problem="" if self.ended else "not finished")


@dataclass
class Simulation:
    """One tier with one replica. ``config`` None: everything is queued, as without admission."""

    config: AdmissionConfig | None
    limits: Limits = field(default_factory=lambda: LIMITS)

    def run(
        self, offered: Sequence[Offered], drain_s: float = 90.0, on_end: Callable[[], None] = lambda: None
    ) -> list[Arrival]:
        """Offers the requests, which are in the order of their instants, and goes on until all have ended or
        ``drain_s`` seconds after the last one have passed. ``on_end`` is called for each that has ended."""
        arrivals = [Arrival(one) for one in offered]
        clock = VirtualClock()
        begin = clock.time
        subject = Scheduler(
            KVCache([GroupShape(None, BLOCKS, BLOCK_SIZE, self.limits.prefill_chunk)], False), self.limits
        )
        admission = Admission(self.config or AdmissionConfig(enabled=False), clock, NoUsageMetrics())
        running: dict[str, tuple[Arrival, EngineSequence]] = {}
        waiting = iter(enumerate(arrivals))
        following = next(waiting, None)
        end = begin + (offered[-1].at if offered else 0.0) + drain_s
        while clock.time < end and (following is not None or running):
            while following is not None and begin + following[1].offered.at <= clock.time:
                number, one = following
                following = next(waiting, None)
                facts = RequestFacts(one.offered.tenant, one.priority, 1, one.offered.words, one.offered.max_tokens)
                try:
                    one.place = admission.enter(facts, "fast", ["fast"], [report(subject)], str(number))
                except AdmissionRefusedError as error:
                    one.refused = error
                    on_end()
                    continue
                made = sequence_of(str(number), one, one.place, clock.time)
                subject.add(made)
                one.place.placed(0, "one", one.offered.words)
                running[made.request_id] = one, made
            plan = subject.schedule(clock.time)
            if not plan.chunks:
                clock.time = max(clock.time + 0.001, begin + following[1].offered.at if following is not None else 0.0)
                continue
            clock.time += STEP_S + TOKEN_S * plan.tokens
            finish(subject, plan)
            for chunk in plan.chunks:
                one, made = running[chunk.sequence.request_id]
                if one.ttft_s is None and made.generated:
                    one.ttft_s = clock.time - begin - one.offered.at
                    assert one.place is not None
                    one.place.started()
                if made.generated >= made.max_tokens:
                    one.ended = True
                    assert one.place is not None
                    one.place.release()
                    on_end()
                    del running[chunk.sequence.request_id]
        return arrivals


def sequence_of(name: str, one: Arrival, place: Place, now: float) -> EngineSequence:
    """Returns the sequence of a request that is admitted at the instant ``now``. Its words are its tokens."""
    words = one.offered.words
    made = EngineSequence(name, [hash(name) % 997 + 2] * words, words, SamplingParams(), "", 0, one.offered.max_tokens)
    made.tenant, made.priority, made.arrived = one.offered.tenant, one.priority, now
    made.objective = None if place.ttft_s is None else now + place.ttft_s
    made.surplus = place.surplus
    return made


def finish(subject: Scheduler, plan: Plan) -> None:
    """Does what the engine does with a plan that was run."""
    for chunk in plan.chunks:
        sequence = chunk.sequence
        subject.computed(chunk)
        if sequence.computed == len(sequence.tokens):
            sequence.tokens.append(1)
            if sequence.generated >= sequence.max_tokens:
                subject.remove(sequence)


def report(subject: Scheduler) -> TierSnapshot:
    """Returns what the replica reports, which the engine does after each step."""
    short, long = subject.queued_tokens()
    load = ReplicaLoad(
        running=len(subject.running),
        waiting=subject.waiting.requests,
        decoding=subject.decoding,
        queued_short=short,
        queued_long=long,
        step_s=STEP_S,
        prompt_token_s=TOKEN_S,
        sequence_s=TOKEN_S,
        step_tokens=subject.limits.batch_tokens,
        prefill_chunk=subject.limits.prefill_chunk,
        max_sequences=subject.limits.sequences,
        output_tokens=MEAN_OUTPUT,
        kv_capacity_tokens=float(BLOCKS * BLOCK_SIZE),
    )
    return TierSnapshot("fast", frozenset({"one"}), waiting=load.waiting, loads={"one": load})
