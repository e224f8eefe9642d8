"""What users of other gateways have reported about limits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from router.config.limits import LimitsConfig
from router.limits.guessed_charge import within_limits
from router.ports.limit_store import Charge, LimitName, Scope
from tests.router.backend import ScriptedBackend
from tests.router.limited import Limited
from tests.router.served import Served
from tests.router.waiting import wait_for

STREAMED: dict[str, Any] = {"model": "fast", "messages": [{"role": "user", "content": "Hi"}], "stream": True}


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


@pytest.mark.parametrize("limits", [{"tokens_per_minute": 100}, {"tokens_per_day": 100}], ids=["minute", "day"])
def test_a_guess_of_the_answers_length_refuses_no_first_request(made: list[Served], limits: dict[str, int]) -> None:
    """BerriAI/litellm 29191, 29193: without max_tokens, more is reserved than the whole limit, and all is refused."""
    served = limited(made, key=LimitsConfig(**limits))

    assert served.chat(max_tokens=None).status_code == 200
    wait_for(lambda: served.open() == 0)
    assert served.chat(max_tokens=None).status_code == 200, "what the first has not used is there again"
    assert served.chat(max_tokens=101).headers["x-should-retry"] == "false"


def test_a_request_that_is_refused_for_those_at_once_uses_no_request_of_the_minute(made: list[Served]) -> None:
    """BerriAI/litellm 39309: it is counted before the concurrent requests are."""
    served = limited(made, key=LimitsConfig(requests_per_minute=2, concurrent_requests=1))
    served.backend = ScriptedBackend(stall_at=2)
    with served.http.stream("POST", "/v1/chat/completions", json=STREAMED) as first:
        lines = first.iter_lines()  # while it is referred to, the connection stays open
        next(lines)
        refused: list[httpx.Response] = [served.chat() for _ in range(3)]
    wait_for(lambda: served.open() == 0)
    served.backend = ScriptedBackend()

    assert [each.status_code for each in refused] == [429] * 3
    assert served.chat().status_code == 200
    assert served.chat().status_code == 429


SCOPES = (
    Scope("key:1", ((LimitName.REQUESTS_PER_MINUTE, 3), (LimitName.TOKENS_PER_MINUTE, 100))),
    Scope("tenant", ((LimitName.TOKENS_PER_DAY, 80), (LimitName.MONEY_PER_MONTH, 50))),
)


@pytest.mark.parametrize(
    ("guess", "least", "expected"),
    [
        (Charge(70, 40), Charge(10, 5), Charge(70, 40)),
        (Charge(300, 200), Charge(10, 5), Charge(80, 50)),
        (Charge(300, 200), Charge(90, 60), Charge(90, 60)),
    ],
    ids=["fits", "cut", "prompt"],
)
def test_a_guess_is_cut_to_the_smallest_limit_and_not_below_the_prompt(
    guess: Charge, least: Charge, expected: Charge
) -> None:
    assert within_limits(guess, least, SCOPES) == expected
    assert within_limits(guess, least, ()) == guess
