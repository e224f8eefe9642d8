"""What a router knows of the requests that it has placed, and what it learns from them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.lanes.placed_requests import PlacedRequests
from cluster.lanes.prompt_size import CHARACTERS_PER_TOKEN, PromptSize
from cluster.lanes.ttft_correction import LEAST, MOST, MOST_OVERHEAD_S, TtftCorrection
from engine.api import Conversation, GenerationRequest, Message, Priority
from router.latency_prediction import predict_ttft
from router.ports.replica_load import ReplicaLoad
from tests.router.replica_loads import IDLE


def test_what_was_sent_since_the_last_report_is_queued() -> None:
    placed = PlacedRequests()
    placed.place("a", Priority.STANDARD, 100, IDLE, 0.1, 0.0)
    placed.place("b", Priority.BATCH, 2_000, IDLE, 0.1, 0.0)
    seen = placed.outlook(IDLE, 0.0)
    assert (seen.queued_short, seen.queued_long, seen.waiting) == ((0, 100, 0), (0, 0, 2_000), 2)


def test_a_report_has_what_the_replica_had_accepted_before() -> None:
    placed = PlacedRequests()
    for name in "ab":
        placed.place(name, Priority.STANDARD, 100, IDLE, 0.1, 0.0)
    placed.accepted("a")
    placed.reported(0.0)
    assert placed.outlook(IDLE, 0.0).queued_short == (0, 100, 0)  # b is still under way
    placed.accepted("b")
    placed.reported(0.0)
    assert placed.outlook(IDLE, 0.0) == IDLE


def test_what_the_replica_has_computed_since_its_report_is_not_queued_any_more() -> None:
    placed = PlacedRequests()
    placed.reported(0.0)
    queue = replace(IDLE, queued_short=(0, 400, 100), queued_long=(0, 0, 600))
    assert placed.outlook(queue, 0.0).queued_short == (0, 400, 100)
    later = placed.outlook(queue, 0.2)  # a token takes a millisecond
    assert 190 < later.queued_short[1] < 210
    assert (later.queued_short[2], later.queued_long) == (100, (0, 0, 600))
    assert placed.outlook(queue, 99.0).queued_long == (0, 0, 0)


def test_the_age_of_a_step_is_known_from_the_report_at_its_end() -> None:
    placed, busy = PlacedRequests(), replace(IDLE, running=2, decoding=2)
    placed.reported(10.0, after_step=True)
    assert placed.outlook(busy, 10.004).step_age_s == pytest.approx(0.004)
    placed.reported(11.0)  # a heartbeat
    assert placed.outlook(busy, 11.004).step_age_s == -1.0


def test_a_request_that_was_sent_long_ago_is_not_computed_before_it_was_sent() -> None:
    placed = PlacedRequests()
    placed.reported(0.0)
    placed.place("a", Priority.STANDARD, 400, IDLE, 0.4, 10.0)
    assert 290 < placed.outlook(IDLE, 10.1).queued_short[1] < 310


def test_requests_that_end_or_get_a_token_are_forgotten() -> None:
    placed = PlacedRequests()
    for name in "ab":
        placed.place(name, Priority.STANDARD, 100, IDLE, 0.1, 0.0)
    placed.end("a")
    placed.first_token("b", 0.1)
    assert placed.outlook(IDLE, 0.0).queued_short == (0, 0, 0)


def test_what_was_sent_counts_for_each_connected_router() -> None:
    placed, shared = PlacedRequests(), replace(IDLE, lanes=3)
    placed.place("a", Priority.STANDARD, 100, shared, 0.1, 0.0)
    assert placed.outlook(shared, 0.0).queued_short == (0, 300, 0)


def test_a_replica_of_a_release_without_tokens_has_more_waiting_sequences() -> None:
    placed = PlacedRequests()
    placed.place("a", Priority.STANDARD, 100, ReplicaLoad(), 0.0, 0.0)
    assert placed.outlook(ReplicaLoad(waiting=1), 0.0) == ReplicaLoad(waiting=2)


def test_the_correction_is_learnt_from_first_tokens_and_taken_out_of_what_it_is_learnt_from() -> None:
    seen: list[tuple[float, float]] = []
    placed = PlacedRequests(lambda predicted, measured: seen.append((predicted, measured)))
    for number in range(300):
        load = placed.outlook(IDLE, float(number))
        prompt = (50, 200, 600)[number % 3]
        raw_s = predict_ttft(IDLE, prompt)
        placed.place(f"{number}", Priority.STANDARD, prompt, load, predict_ttft(load, prompt), float(number))
        placed.first_token(f"{number}", number + 0.02 + 1.5 * raw_s)
    busy = placed.outlook(replace(IDLE, running=1, decoding=1), 999.0)
    learnt = placed.outlook(IDLE, 999.0)
    assert (busy.correction, busy.overhead_s) == (learnt.correction, learnt.overhead_s)
    assert learnt.correction == pytest.approx(1.5, rel=0.05)
    assert learnt.overhead_s == pytest.approx(0.02, rel=0.1)
    assert all(predicted == pytest.approx(measured, rel=0.05) for predicted, measured in seen[-20:])


def test_a_replica_that_has_measured_nothing_teaches_nothing() -> None:
    placed = PlacedRequests()
    placed.place("a", Priority.STANDARD, 100, ReplicaLoad(), 0.0, 0.0)
    placed.first_token("a", 5.0)
    assert placed.outlook(IDLE, 0.0).correction == 1.0


def test_one_slow_request_moves_the_correction_little() -> None:
    correction = TtftCorrection()
    for number in range(100):
        predicted_s = 0.05 + 0.05 * (number % 3)
        correction.observe(predicted_s, predicted_s)
    correction.observe(0.1, 100.0)
    assert correction.overhead_s + 0.1 * correction.factor < 0.11


@pytest.mark.parametrize("measured_s", [0.02, 0.25, 0.4])
def test_requests_of_one_size_are_learnt_too(measured_s: float) -> None:
    correction = TtftCorrection()
    for _ in range(300):
        correction.observe(0.1, measured_s)
    assert correction.overhead_s + 0.1 * correction.factor == pytest.approx(measured_s, rel=0.1)


def test_a_slow_replica_with_long_waits_is_a_factor_not_an_overhead() -> None:
    correction = TtftCorrection()
    for _ in range(300):
        correction.observe(10.0, 25.0)
    assert correction.overhead_s <= MOST_OVERHEAD_S
    assert correction.overhead_s + 10.0 * correction.factor == pytest.approx(25.0, rel=0.1)


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6))))
def test_the_correction_stays_within_its_bounds(ttfts: list[tuple[float, float]]) -> None:
    correction = TtftCorrection()
    for predicted, measured in ttfts:
        correction.observe(predicted, measured)
    assert LEAST <= correction.factor <= MOST
    assert 0 <= correction.overhead_s <= MOST_OVERHEAD_S


def test_the_length_of_a_token_is_learnt() -> None:
    size = PromptSize()
    text = GenerationRequest("q", "x" * 1_200)
    assert size.tokens(text) == 1_200 / CHARACTERS_PER_TOKEN
    for _ in range(20):
        size.observe(text, 400)
    assert size.tokens(text) == pytest.approx(400, rel=0.01)
    assert size.tokens(GenerationRequest("q", Conversation((Message("user", "x" * 600),)))) == pytest.approx(200, 0.02)


def test_token_ids_are_counted_and_resumed_ones_too() -> None:
    assert PromptSize().tokens(GenerationRequest("q", tuple(range(50)), resume=(1, 2, 3))) == 53


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["place", "look", "accept", "end", "token", "report"]), st.integers(0, 7), st.floats(0, 0.4)
        ),
        max_size=60,
    )
)
def test_outlooks_that_are_computed_in_parts_are_those_computed_anew(steps: list[tuple[str, int, float]]) -> None:
    """After each step, the outlook equals that of a second object, which gets the same steps and is asked only once."""
    load = ReplicaLoad(
        running=3, decoding=2, queued_short=(0, 90, 10), queued_long=(0, 0, 5000), step_s=0.01, prompt_token_s=1e-4,
        step_tokens=512, long_step_tokens=256, prefill_chunk=400, lanes=2,
    )  # fmt: skip
    asked, done = PlacedRequests(), []
    now = 100.0
    for name, request, later in steps:
        now += later

        def step(placed: PlacedRequests, name: str = name, request: int = request, now: float = now) -> None:
            match name:
                case "place":
                    placed.place(
                        f"{request}", Priority.STANDARD, 100 * request + 1, placed.outlook(load, now), 0.1, now
                    )
                case "accept":
                    placed.accepted(f"{request}")
                case "end":
                    placed.end(f"{request}")
                case "token":
                    placed.first_token(f"{request}", now)
                case "report":
                    placed.reported(now, after_step=request > 3)

        step(asked)
        done.append(step)
        anew = PlacedRequests()
        for each in done:
            each(anew)
        anew._queues = anew._outlook = None
        assert asked.outlook(load, now) == anew.outlook(load, now)
