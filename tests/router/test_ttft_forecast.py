"""What a router expects of the replicas' reports: its own requests once, long prompts as such, and no queue as none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.api import Priority
from load_tests.overload.simulation import VirtualClock
from router.admission.admission import Admission
from router.admission.admission_decision import RequestFacts
from router.admission.admitted_requests import AdmittedRequests
from router.admission.tier_views import view_of
from router.admission.ttft_forecast import TtftForecast, forecast_ttft
from router.config.admission import AdmissionConfig, ClassAdmission
from router.ports.replica_load import ReplicaLoad
from router.ports.tier_backend import TierSnapshot
from router.ports.usage_metrics import NoUsageMetrics

MANY = [TierSnapshot("fast", frozenset(str(number) for number in range(24)))]


def learnt_rate(admission: Admission, clock: VirtualClock) -> None:
    """Has a tier of 24 replicas start 1,200 requests of 400 tokens a second, with a queue of 120."""
    facts = RequestFacts("acme", Priority.STANDARD, 1, 200, 100)
    places = []
    for _ in range(40):
        places += [admission.enter(facts, "fast", ["fast"], MANY, "id") for _ in range(120)]
        clock.time += 0.1
        for place in places[:-120]:
            place.started()
        del places[:-120]
    for place in places:
        place.started()


def test_a_long_prompt_that_one_of_many_replicas_computes_refuses_no_others() -> None:
    clock = VirtualClock()
    admission = Admission(AdmissionConfig(standard=ClassAdmission(ttft_s=5.0)), clock, NoUsageMetrics())
    learnt_rate(admission, clock)
    whole = admission.admitted["fast"].rate.tokens_per_s(clock.time)
    assert whole is not None
    long = RequestFacts("acme", Priority.STANDARD, 1, round(3 * whole / 24), 0)  # three seconds of one replica
    admission.enter(long, "fast", ["fast"], MANY, "long")
    clock.time += 2.9

    short = RequestFacts("acme", Priority.STANDARD, 1, 100, 0)
    view = view_of(short, MANY[0], admission.admitted["fast"], AdmissionConfig(), clock.time)

    assert view.ttft_s is not None
    assert view.ttft_s < 1.0


SLOW = ReplicaLoad(
    queued_short=(0, 0, 0),
    queued_long=(0, 0, 0),
    step_s=0.05,
    prompt_token_s=0.002,  # 500 tokens per second: a laptop
    sequence_s=0.02,
    step_tokens=512,
    long_step_tokens=256,
    long_beside_decodes=32,
    prefill_chunk=256,
    max_sequences=16,
    output_tokens=200.0,
    kv_capacity_tokens=32_768.0,
)
LONG = 8_000  # tokens


def asked(prompt: int, priority: Priority = Priority.STANDARD) -> RequestFacts:
    return RequestFacts("dev", priority, 1, prompt, 100)


def snapshot(load: ReplicaLoad) -> TierSnapshot:
    return TierSnapshot("general", frozenset({"one"}), waiting=load.waiting, loads={"one": load})


def expected(load: ReplicaLoad, facts: RequestFacts, room: AdmittedRequests | None = None) -> TtftForecast:
    found = forecast_ttft(snapshot(load), facts, room or AdmittedRequests())
    assert found is not None
    return found


@pytest.mark.parametrize("priority", [Priority.INTERACTIVE, Priority.STANDARD])
@pytest.mark.parametrize("decoding", [0, 1, 4])
def test_a_prompt_of_any_length_is_taken_while_nothing_waits(priority: Priority, decoding: int) -> None:
    load = replace(SLOW, running=decoding, decoding=decoding)
    admission = Admission(AdmissionConfig(), VirtualClock(), NoUsageMetrics())
    facts = asked(LONG, priority)
    assert expected(load, facts).ttft_s > 15.0

    place = admission.enter(facts, "general", ["general"], [snapshot(load)], "one")

    assert place.tier == "general"


def test_a_long_prompt_of_this_router_counts_once() -> None:
    room = AdmittedRequests()
    room.take(Priority.STANDARD, "dev", 1, LONG + 200, 0.0, LONG)
    load = replace(SLOW, running=1, queued_long=(0, LONG, 0), long_prompts=1)

    alone = expected(SLOW, asked(LONG)).ttft_s
    assert expected(load, asked(LONG), room).ttft_s == pytest.approx(2 * alone, rel=0.1)


def test_a_short_prompt_passes_a_long_one() -> None:
    room = AdmittedRequests()
    room.take(Priority.STANDARD, "dev", 1, LONG + 200, 0.0, LONG)
    load = replace(SLOW, running=1, queued_long=(0, LONG // 2, 0), long_prompts=1)

    assert expected(load, asked(20), room).ttft_s < 3.0
