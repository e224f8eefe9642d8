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
SHORT, LONG = 256, 8_000  # tokens


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


QUEUE = replace(SLOW, running=1, waiting=3, queued_long=(0, 4 * LONG, 0), long_prompts=4)
"""A replica with four long prompts, one of which it computes."""


def expected_on(loads: dict[str, ReplicaLoad], room: AdmittedRequests, prompt: int = LONG) -> TtftForecast:
    """The forecast of a prompt on a tier of replicas with these loads."""
    tier = TierSnapshot("general", frozenset(loads), waiting=sum(load.waiting for load in loads.values()), loads=loads)
    found = forecast_ttft(tier, asked(prompt), room)
    assert found is not None
    return found


def queue_of(prompts: int, on: str) -> AdmittedRequests:
    """Returns admitted requests: ``prompts`` long prompts without a first token, all on the replica ``on``."""
    room = AdmittedRequests()
    for _ in range(prompts):
        room.take(Priority.STANDARD, "dev", 1, LONG + 200, 0.0, LONG).placed(0, on, LONG)
    return room


def test_what_waits_on_one_replica_delays_nothing_on_another() -> None:
    loads = {"busy": QUEUE, "idle": SLOW}
    found = expected_on(loads, queue_of(4, "busy"))
    assert found.ttft_s == pytest.approx(found.alone_s, rel=0.01)


def test_what_is_not_sent_yet_delays_a_request_on_every_replica() -> None:
    room = AdmittedRequests()
    for _ in range(4):
        room.take(Priority.STANDARD, "dev", 1, SHORT + 200, 0.0, SHORT)
    found = expected_on({"one": SLOW, "other": SLOW}, room, SHORT)
    assert found.ttft_s == pytest.approx(3 * found.alone_s, rel=0.1)  # two of the four, and itself


def test_the_requests_of_other_routers_count_beside_the_own_ones_that_were_sent_there() -> None:
    found = expected_on({"one": QUEUE}, queue_of(2, "one"))
    assert found.ttft_s == pytest.approx(expected_on({"one": QUEUE}, AdmittedRequests()).ttft_s, rel=0.01)


def test_of_a_prompt_that_is_being_computed_only_the_rest_counts() -> None:
    rest = replace(SLOW, running=1, queued_long=(0, LONG // 4, 0), long_prompts=1)
    found = expected_on({"one": rest}, queue_of(1, "one"))
    assert found.ttft_s == pytest.approx(1.25 * expected(SLOW, asked(LONG)).ttft_s, rel=0.1)


def test_a_request_that_goes_to_another_replica_waits_there_alone() -> None:
    room = AdmittedRequests()
    ticket = room.take(Priority.STANDARD, "dev", 1, 4 * LONG, 0.0, 4 * LONG)
    ticket.placed(0, "lost", 4 * LONG)
    ticket.placed(0, "busy", 4 * LONG)
    found = expected_on({"busy": QUEUE, "lost": SLOW}, room)
    assert found.ttft_s == pytest.approx(found.alone_s, rel=0.01)


def test_what_a_lost_replica_had_waits_for_another() -> None:
    room = AdmittedRequests()
    for _ in range(4):
        room.take(Priority.STANDARD, "dev", 1, LONG + 200, 0.0, LONG)
    not_sent = expected_on({"other": SLOW}, room)
    assert not_sent.ttft_s > 4 * not_sent.alone_s
    assert expected_on({"other": SLOW}, queue_of(4, "lost")).ttft_s == pytest.approx(not_sent.ttft_s, rel=0.01)


def test_prompts_of_a_request_that_are_sent_are_taken_off_those_that_are_not() -> None:
    room = AdmittedRequests()
    ticket = room.take(Priority.STANDARD, "dev", 4, 4 * SHORT, 0.0, 4 * SHORT)
    for prompt in range(2):
        ticket.placed(prompt, "busy", SHORT)
    load = replace(SLOW, running=1, waiting=1, queued_short=(0, 2 * SHORT, 0))
    rest = expected_on({"busy": load, "idle": SLOW}, room, SHORT)
    assert rest.ttft_s == pytest.approx(2 * rest.alone_s, rel=0.1)  # half of the other two, and itself
    for prompt in (2, 3):
        ticket.placed(prompt, "busy", SHORT)
    load = replace(load, waiting=3, queued_short=(0, 4 * SHORT, 0))
    none = expected_on({"busy": load, "idle": SLOW}, room, SHORT)
    assert none.ttft_s == pytest.approx(none.alone_s, rel=0.01)


def test_higher_classes_that_wait_on_a_replica_are_ahead_and_lower_ones_are_not() -> None:
    room = AdmittedRequests()
    for priority in (Priority.INTERACTIVE, Priority.BATCH):
        room.take(priority, "dev", 1, LONG + 200, 0.0, LONG).placed(0, "one", LONG)
    load = replace(SLOW, running=1, waiting=1, queued_long=(LONG, 0, LONG), long_prompts=2)
    assert expected_on({"one": load}, room).ttft_s == pytest.approx(2 * expected(SLOW, asked(LONG)).ttft_s, rel=0.1)
