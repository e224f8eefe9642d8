"""The admission through a real HTTP server: refusals, their headers, what is given back, and what is never refused."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from engine.api import OverloadedError, Priority
from router.ports.tier_backend import (
    ReplicaLostError,
    ReplicaOverloadedError,
    TierUnavailableError,
)
from tests.router.loaded import HELD, ask, ask_later, body, held, parts, until
from tests.router.served import KEY, Served


def test_a_full_queue_refuses_at_once_with_all_that_it_was_decided_by(small: Served) -> None:
    async def run() -> httpx.Response:
        async with held(small):
            return await ask_later(small)

    answer = asyncio.run(run())

    assert answer.status_code == 429
    assert answer.json()["error"]["type"] == "rate_limit_error"
    assert answer.json()["error"]["code"] == "overloaded"
    assert parts(answer) | {"waiting_tokens": ""} == {
        "reason": "queue_requests",
        "tier": "fast",
        "class": "standard",
        "value": "1",
        "limit": "1",
        "ttft_s": "unknown",
        "waiting": "1",
        "waiting_tokens": "",
        "ceiling": "1.00",
    }
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert 1000 <= int(answer.headers["retry-after-ms"]) <= 1000 * int(answer.headers["retry-after"])
    assert "x-should-retry" not in answer.headers, "client libraries retry by themselves"
    assert len(small.backend.requests) == 1, "no replica got it"


def test_each_class_has_a_queue_of_its_own(small: Served) -> None:
    async def run() -> list[int]:
        async with held(small, service_tier="flex"):
            answers = [await ask_later(small, service_tier=name) for name in ("flex", "default", "auto", "priority")]
            return [answer.status_code for answer in answers]

    assert asyncio.run(run()) == [429, 200, 200, 200]
    assert small.backend.requests[0].priority is Priority.BATCH


def test_a_client_that_leaves_while_it_waits_gives_its_room_back(small: Served) -> None:
    async def run() -> list[int]:
        statuses = []
        for _ in range(3):
            small.backend.requests.clear()
            async with held(small):
                statuses.append((await ask_later(small)).status_code)
            await until(lambda: small.backend.closed == len(small.backend.requests))
            small.backend.closed = 0
        statuses.append((await ask_later(small)).status_code)
        return statuses

    assert asyncio.run(run()) == [429, 429, 429, 200]


@pytest.mark.parametrize(
    "fault", [RuntimeError("x"), TierUnavailableError("x"), ReplicaLostError("x", "fast")], ids=repr
)
def test_an_error_gives_the_room_back(small: Served, fault: Exception) -> None:
    small.backend.fault, small.backend.ready = fault, not isinstance(fault, TierUnavailableError)
    assert [ask(small).status_code for _ in range(3)] != [200] * 3
    small.backend.fault, small.backend.ready = None, True

    assert ask(small).status_code == 200


def test_a_stream_gives_its_room_back_with_its_first_token(small: Served) -> None:
    small.backend.stall_at = 2
    with httpx.stream(
        "POST",
        f"{small.url}/v1/chat/completions",
        json=body(stream=True),
        headers={"authorization": f"Bearer {KEY}"},
        timeout=20,
    ) as stream:
        assert any("Hello" in line for line in stream.iter_lines())
        small.backend.stall_at = None

        assert ask(small).status_code == 200


def test_a_refusal_takes_nothing_from_the_limits(small: Served) -> None:
    async def run() -> list[httpx.Response]:
        async with held(small):
            refused = [await ask_later(small) for _ in range(5)]
        await until(lambda: small.backend.closed == 1)
        return [*refused, await ask_later(small)]

    *refused, after = asyncio.run(run())
    before = int(ask(small).headers["x-ratelimit-remaining-requests"])

    assert {answer.status_code for answer in refused} == {429}
    assert int(after.headers["x-ratelimit-remaining-requests"]) == before + 1


def test_a_predicted_wait_refuses_by_the_objective_of_the_class_or_the_deadline(small: Served) -> None:
    small.backend.wait_s = 4.5  # type: ignore[attr-defined]

    late = ask(small, deadline_s=2.0)
    assert (late.status_code, parts(late)["reason"], parts(late)["ttft_s"]) == (429, "deadline", "4.5")
    assert ask(small, service_tier="flex").status_code == 200

    small.backend.wait_s = 60.0  # type: ignore[attr-defined]
    refused = ask(small, service_tier="priority")
    assert (refused.status_code, parts(refused)["reason"], parts(refused)["class"]) == (429, "ttft", "interactive")
    assert int(refused.headers["retry-after"]) > 40


def test_requests_that_wait_for_the_answer_to_an_identical_one_take_no_room(small: Served) -> None:
    async def run() -> int:
        same: dict[str, Any] = {"model": "balanced", "temperature": 0}
        async with held(small, **same), held(small, **same):
            await asyncio.sleep(0.5)
            answer = await ask_later(small, model="balanced", prompt="another")
            assert len(small.backend.requests) == 2, "the identical one is not sent"
            return answer.status_code

    assert asyncio.run(run()) == 200


def test_a_stored_answer_needs_no_room(small: Served) -> None:
    known: dict[str, Any] = {"temperature": 0, "prompt": "known"}
    assert ask(small, **known).headers["x-manta-cache"].startswith("miss")
    small.backend.wait_s = 60.0  # type: ignore[attr-defined]

    again = ask(small, service_tier="priority", **known)
    assert again.status_code == 200
    assert again.headers["x-manta-cache"].startswith("exact")
    assert ask(small, service_tier="priority", temperature=0, prompt="new").status_code == 429


def test_a_refused_request_reaches_no_replica_however_many_there_are(small: Served) -> None:
    small.backend.wait_s = 60.0  # type: ignore[attr-defined]
    small.backend.requests.clear()

    assert [ask(small, service_tier="priority").status_code for _ in range(100)] == [429] * 100

    assert small.backend.requests == []


def test_replicas_that_are_full_do_not_end_what_was_admitted(small: Served) -> None:
    small.backend.fault = ReplicaOverloadedError("full", "fast", 0.05)

    async def run() -> httpx.Response:
        asked = asyncio.create_task(ask_later(small))
        await until(lambda: len(small.backend.requests) > 3)
        small.backend.fault = None
        return await asked

    answer = asyncio.run(run())
    assert answer.status_code == 200
    assert len(small.backend.requests) > 3


def test_the_next_request_takes_the_number_of_refusals_to_its_replica_once(small: Served) -> None:
    ask(small)  # takes the refusals of other tests
    small.backend.wait_s = 60.0  # type: ignore[attr-defined]
    assert [ask(small, service_tier="priority").status_code for _ in range(3)] == [429] * 3
    small.backend.wait_s = 0.0  # type: ignore[attr-defined]
    small.backend.requests.clear()
    ask(small)
    ask(small)

    assert [request.refused_before for request in small.backend.requests] == [(3, 0, 0), ()]


def test_only_a_tier_without_any_replica_is_unavailable(small: Served) -> None:
    small.backend.fault, small.backend.ready = TierUnavailableError("none"), False
    answer = ask(small)

    assert answer.status_code == 503
    assert answer.headers["x-manta-refused"] == "reason=no_capacity"


def test_without_admission_the_replica_refuses(served: Served) -> None:
    served.backend.fault = OverloadedError("full", 7)
    answer = ask(served)

    assert (answer.status_code, answer.headers["x-manta-refused"]) == (429, "reason=replica_queue")
    assert answer.headers["retry-after"] == "7"


def test_of_a_burst_no_more_are_admitted_than_have_room_and_none_is_refused_later(small: Served) -> None:
    async def run() -> list[int]:
        async with httpx.AsyncClient(timeout=20, headers={"authorization": f"Bearer {KEY}"}) as client:
            path = f"{small.url}/v1/chat/completions"
            sent = [asyncio.create_task(client.post(path, json=body(HELD))) for _ in range(30)]
            done, waiting = await asyncio.wait(sent, timeout=3)
            for task in waiting:
                task.cancel()
            await asyncio.wait(waiting)
            assert len(small.backend.requests) == len(waiting)
            return [task.result().status_code for task in done]

    assert asyncio.run(run()) == [429] * 29
