"""Limits of keys and tenants, as a client meets them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from router.config.limits import LimitPolicy, LimitsConfig
from router.limits.limit_refusal import refusal
from router.openai.rate_limit_headers import go_duration
from router.ports.limit_store import Charge, LimitDecision, LimitName, LimitUse, Scope
from router.ports.tier_backend import ReplicaLostError
from tests.router.backend import ScriptedBackend
from tests.router.limited import CHAT, OTHER, Limited
from tests.router.served import KEY, Served
from tests.router.waiting import wait_for

USED = 3 + 5  # tokens of a scripted answer


@pytest.fixture
def made() -> Iterator[list[Served]]:
    """Servers that are stopped at the end."""
    servers: list[Served] = []
    yield servers
    for server in servers:
        server.stop()


def limited(made: list[Served], **settings: Any) -> Limited:
    made.append(server := Limited(**settings))
    return server


@pytest.mark.parametrize(("wait_ms", "should_retry"), [(1, True), (61_000, True), (61_001, False), (None, False)])
def test_a_client_waits_for_any_minute_and_for_nothing_longer(wait_ms: int | None, should_retry: bool) -> None:
    use = LimitUse("key:k", LimitName.REQUESTS_PER_MINUTE, 1, 1, 61_000, wait_ms)
    assert refusal(LimitDecision((use,)), Charge()).should_retry is should_retry


def test_every_answer_says_what_is_left(made: list[Served]) -> None:
    served = limited(made, key=LimitsConfig(requests_per_minute=3, tokens_per_minute=1000))

    headers = served.chat().headers

    assert headers["x-ratelimit-limit-requests"] == "3"
    assert headers["x-ratelimit-remaining-requests"] == "2"
    assert headers["x-ratelimit-limit-tokens"] == "1000"
    assert 900 < int(headers["x-ratelimit-remaining-tokens"]) < 990
    assert headers["x-ratelimit-reset-requests"].startswith(("1m0", "1m1"))
    assert "x-manta-limit-warning" not in headers


def test_a_key_without_limits_gets_no_such_headers(made: list[Served]) -> None:
    headers = limited(made).chat().headers

    assert not [name for name in headers if name.startswith("x-ratelimit")]


@pytest.mark.parametrize("stream", [True, False])
def test_a_request_over_the_limit_is_refused_in_the_form_of_openai(made: list[Served], stream: bool) -> None:
    served = limited(made, key=LimitsConfig(requests_per_minute=1))
    assert served.chat(stream=stream).status_code == 200

    refused = served.chat(stream=stream)

    assert refused.status_code == 429
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert "requests per minute: limit 1, used 1, requested 1" in refused.json()["error"]["message"]
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert 55_000 < int(refused.headers["retry-after-ms"]) <= 61_000
    assert 55 < int(refused.headers["retry-after"]) <= 61
    assert refused.headers["x-manta-limit-warning"] == "requests_per_minute of key 100%"
    with pytest.raises(openai.RateLimitError):
        served.openai.chat.completions.create(model="fast", messages=CHAT["messages"])


def test_a_request_beyond_the_whole_limit_is_not_to_be_tried_again(made: list[Served]) -> None:
    refused = limited(made, key=LimitsConfig(tokens_per_minute=20)).chat(max_tokens=100)

    assert refused.status_code == 429
    assert refused.headers["x-should-retry"] == "false"
    assert "retry-after" not in refused.headers


def test_the_tenants_limit_holds_for_all_its_keys(made: list[Served]) -> None:
    served = limited(made, tenant=LimitsConfig(requests_per_minute=2))

    assert [served.chat(key).status_code for key in (KEY, OTHER, KEY)] == [200, 200, 429]


@pytest.mark.parametrize("stream", [True, False])
def test_a_finished_request_counts_what_the_engine_counted(made: list[Served], stream: bool) -> None:
    served = limited(made, tenant=LimitsConfig(tokens_per_minute=1000, concurrent_requests=4))

    served.chat(stream=stream)

    wait_for(lambda: served.open() == 0)
    assert served.used(LimitName.TOKENS_PER_MINUTE) == USED


def test_a_request_that_fails_counts_what_was_generated(made: list[Served]) -> None:
    served = limited(made, tenant=LimitsConfig(tokens_per_minute=1000))
    served.backend = ScriptedBackend(fault=ReplicaLostError("gone"), fault_at=3)
    served.chat(stream=True)

    wait_for(lambda: served.open() == 0)
    prompt = served.used(LimitName.TOKENS_PER_MINUTE) - 3
    assert 0 < prompt < 40


def test_a_request_that_never_began_counts_nothing(made: list[Served]) -> None:
    served = limited(made, tenant=LimitsConfig(tokens_per_minute=1000))
    served.backend = ScriptedBackend(fault=ReplicaLostError("gone"))
    served.chat()

    wait_for(lambda: served.open() == 0)
    assert served.used(LimitName.TOKENS_PER_MINUTE) == 0


def test_a_client_that_leaves_returns_what_was_not_generated(made: list[Served]) -> None:
    served = limited(made, tenant=LimitsConfig(tokens_per_minute=1000, concurrent_requests=1))
    served.backend = ScriptedBackend(stall_at=2)
    with served.http.stream(
        "POST", "/v1/chat/completions", json=CHAT | {"stream": True, "max_tokens": 500}
    ) as response:
        lines = response.iter_lines()  # while it is referred to, the connection stays open
        next(lines)
        assert served.chat().status_code == 429

    wait_for(lambda: served.open() == 0)
    assert served.used(LimitName.TOKENS_PER_MINUTE) < 50


def test_a_long_request_keeps_its_lease(made: list[Served]) -> None:
    served = limited(made, tenant=LimitsConfig(concurrent_requests=1))
    served.backend = ScriptedBackend(stall_at=2)
    with served.http.stream("POST", "/v1/chat/completions", json=CHAT | {"stream": True}) as response:
        lines = response.iter_lines()  # while it is referred to, the connection stays open
        next(lines)
        time.sleep(1.5)  # longer than the lease
        assert served.chat().status_code == 429


def test_settlements_that_do_not_end_hold_up_no_renewal(made: list[Served]) -> None:
    served = limited(made, tenant=LimitsConfig(concurrent_requests=1))
    served.store.stuck = True
    assert served.chat().status_code == 200
    time.sleep(1.2)  # until the lease of that request has ended, and its settlement was sent again
    served.backend = ScriptedBackend(stall_at=2)
    with served.http.stream("POST", "/v1/chat/completions", json=CHAT | {"stream": True}) as response:
        lines = response.iter_lines()  # while it is referred to, the connection stays open
        next(lines)
        time.sleep(1.5)  # longer than the lease
        assert served.chat().status_code == 429


def test_a_refused_request_leaves_nothing_reserved_by_a_late_store(made: list[Served]) -> None:
    policy = LimitPolicy(when_unavailable="refuse", lease_s=60)
    served = limited(made, tenant=LimitsConfig(tokens_per_minute=1000), policy=policy)
    served.store.late = True

    assert served.chat().status_code == 503

    wait_for(lambda: served.open() == 0)
    assert served.used(LimitName.TOKENS_PER_MINUTE) == 0


@pytest.mark.parametrize(("policy", "status"), [("admit", 200), ("refuse", 503)])
def test_without_the_store_the_policy_decides(made: list[Served], policy: Any, status: int) -> None:
    served = limited(made, key=LimitsConfig(requests_per_minute=1), policy=LimitPolicy(when_unavailable=policy))
    served.store.down = True

    answers = [served.chat() for _ in range(3)]

    assert [answer.status_code for answer in answers] == [status] * 3
    if status == 503:
        assert answers[0].json()["error"]["code"] == "state_unavailable"


def test_what_was_admitted_without_the_store_counts_when_it_is_back(made: list[Served]) -> None:
    limits = LimitsConfig(requests_per_minute=3, tokens_per_day=10_000)
    served = limited(made, key=limits, policy=LimitPolicy(when_unavailable="admit", lease_s=1))
    served.store.down = True
    assert [served.chat().status_code for _ in range(3)] == [200] * 3

    served.store.down = False
    wait_for(lambda: served.used(LimitName.REQUESTS_PER_MINUTE) == 3)
    assert served.used(LimitName.TOKENS_PER_DAY) == 3 * 8
    assert served.chat().status_code == 429


def test_a_settlement_is_sent_again_when_the_store_is_back(made: list[Served]) -> None:
    served = limited(made, tenant=LimitsConfig(tokens_per_minute=1000))
    served.backend = ScriptedBackend(stall_at=2)
    with served.http.stream("POST", "/v1/chat/completions", json=CHAT | {"stream": True}) as response:
        lines = response.iter_lines()  # while it is referred to, the connection stays open
        next(lines)
        served.store.down = True
    wait_for(lambda: served.backend.closed == 1)
    assert served.open() == 1

    served.store.down = False
    wait_for(lambda: served.open() == 0)
    assert served.used(LimitName.TOKENS_PER_MINUTE) > 0


@pytest.mark.parametrize(
    ("ms", "text"),
    [(0, "0s"), (20, "20ms"), (1500, "1.5s"), (59_999, "59.999s"), (360_000, "6m0s"), (3_723_000, "1h2m3s")],
)
def test_durations_are_written_as_go_does(ms: int, text: str) -> None:
    assert go_duration(ms) == text


def test_a_use_beyond_the_limit_leaves_nothing_and_not_less() -> None:
    assert LimitUse("tenant", LimitName.TOKENS_PER_DAY, 10, 12, 0).remaining == 0
    assert Scope("tenant", ()).limits == ()
