"""What would be refused costs no search: limits, permissions and stored answers come before passages are searched."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import Any, Literal

import httpx
import pytest

from router.config.admission import AdmissionConfig, ClassAdmission, TierAdmission
from router.config.auto import AutoConfig
from router.config.limits import LimitPolicy, LimitsConfig
from router.config.prices import PriceConfig, PricesConfig
from router.config.prompts import PromptsConfig
from router.ports.limit_store import LimitName
from tests.router.backend import TIERS, ScriptedBackend
from tests.router.searching import BODY, CHAT, DOCUMENTS, HeldEmbedder, HoldingStore, Searching, searching
from tests.router.served import KEY
from tests.router.waiting import wait_for

UNKNOWN = [{"text": "The ferry leaves at ten."}]  # whose vectors no router remembers
USED = 3 + 5  # tokens of a scripted answer


@pytest.mark.parametrize(
    ("limits", "more"),
    [
        (LimitsConfig(requests_per_minute=1), {}),
        (LimitsConfig(tokens_per_minute=1000), {"max_tokens": 1001}),
        (LimitsConfig(tokens_per_day=1000), {"max_tokens": 1001}),
        (LimitsConfig(money_per_month=1000.0), {"max_tokens": 1001}),
    ],
    ids=["requests", "minute", "day", "money"],
)
@pytest.mark.parametrize("of", ["key", "tenant"])
def test_a_request_over_a_limit_costs_no_search(limits: LimitsConfig, more: dict[str, Any], of: str) -> None:
    prices = PricesConfig(tiers={name: PriceConfig(input=1e6, output=1e6) for name in (*TIERS, "embeddings")})
    with searching(**{of: limits}, prices=prices) as router:
        assert router.ask().status_code == 200
        calls = len(router.embedder.calls)

        refused = router.ask(UNKNOWN, **more)

        assert refused.status_code == 429
        assert len(router.embedder.calls) == calls > 0
        wait_for(lambda: router.open() == 0)


def test_of_many_requests_at_once_only_those_with_room_cost_a_search() -> None:
    """BerriAI/litellm 18730: requests that come at the same time all pass a look at the counters."""
    embedder = HeldEmbedder()
    with searching(LimitsConfig(concurrent_requests=2), embedder=embedder) as router:
        answers: list[httpx.Response] = []
        threads = [threading.Thread(target=lambda: answers.append(router.ask())) for _ in range(8)]
        for each in threads:
            each.start()
        wait_for(lambda: len(answers) == 6)
        assert len(embedder.calls) == 2
        embedder.free.set()
        for each in threads:
            each.join()

        assert sorted(answer.status_code for answer in answers) == [200] * 2 + [429] * 6
        wait_for(lambda: router.open() == 0)


def test_what_was_reserved_before_the_search_is_not_counted_twice() -> None:
    limits = LimitsConfig(requests_per_minute=5, tokens_per_minute=2000, tokens_per_day=5000, concurrent_requests=1)
    with searching(limits) as router:
        plain, augmented = router.ask(documents=()), router.ask()

        assert (plain.status_code, augmented.status_code) == (200, 200)
        wait_for(lambda: router.open() == 0)
        assert router.used(LimitName.REQUESTS_PER_MINUTE) == 2
        assert router.used(LimitName.TOKENS_PER_MINUTE) == router.used(LimitName.TOKENS_PER_DAY) == 2 * USED


def test_the_headers_tell_what_is_left_with_the_passages() -> None:
    limits = LimitsConfig(requests_per_minute=5, tokens_per_minute=2000)
    with searching(limits) as router:
        left = {}
        for documents in (DOCUMENTS, []):
            headers = router.ask(documents).headers
            left[bool(documents)] = int(headers["x-ratelimit-remaining-tokens"])
            wait_for(lambda: router.open() == 0)

        assert headers["x-ratelimit-remaining-requests"] == "3"
        assert left[True] < left[False] - 300  # the passages have 700 characters


def test_a_request_without_room_for_its_passages_is_charged_nothing_but_itself() -> None:
    limits = LimitsConfig(requests_per_minute=5, tokens_per_minute=100, concurrent_requests=1)
    with searching(limits) as router:
        refused = router.ask()

        assert refused.status_code == 429
        assert "tokens per minute: limit 100, used 0" in refused.json()["error"]["message"]
        assert refused.headers["x-ratelimit-remaining-tokens"] == "100"
        wait_for(lambda: router.open() == 0)
        assert router.used(LimitName.TOKENS_PER_MINUTE) == 0
        assert router.used(LimitName.REQUESTS_PER_MINUTE) == 1  # its passages were searched
        assert router.ask(documents=()).status_code == 200


def test_a_conversation_that_is_shortened_reserves_what_is_left_of_it() -> None:
    prompts = PromptsConfig.model_validate({"overflow": {"policies": ["trim"], "answer_tokens": 16}})
    with searching(LimitsConfig(tokens_per_minute=2000), prompts=prompts) as router:
        turns = [{"role": role, "content": "Well then. " * 150} for _ in range(5) for role in ("user", "assistant")]
        answer = router.ask(messages=[*turns, *BODY["messages"]])

        assert answer.status_code == 200, answer.text
        assert answer.headers["x-manta-context"].startswith("trim")
        assert router.embedder.calls != []


def test_a_search_that_fails_leaves_nothing_reserved() -> None:
    with searching(LimitsConfig(tokens_per_minute=1000, concurrent_requests=1)) as router:
        answer = router.ask(documents=(), retrieval={"collections": ["unknown"]})

        assert answer.status_code == 404
        wait_for(lambda: router.open() == 0)
        assert router.used(LimitName.TOKENS_PER_MINUTE) == 0


def test_a_client_that_leaves_during_the_search_leaves_nothing_reserved() -> None:
    embedder = HeldEmbedder()
    with searching(LimitsConfig(tokens_per_minute=1000, concurrent_requests=1), embedder=embedder) as router:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(
                f"{router.served.url}{CHAT}",
                json={**BODY, "documents": DOCUMENTS},
                headers={"authorization": f"Bearer {KEY}"},
                timeout=0.3,
            )

        wait_for(lambda: router.open() == 0)
        embedder.free.set()
        assert router.used(LimitName.TOKENS_PER_MINUTE) == 0


@pytest.mark.parametrize("fault", ["down", "late"])
@pytest.mark.parametrize(("when", "status", "used"), [("admit", 200, USED), ("refuse", 503, 0)])
def test_a_store_that_fails_during_the_search_counts_the_request_once(
    fault: str, when: Literal["admit", "refuse"], status: int, used: int
) -> None:
    embedder = HeldEmbedder()
    limits = LimitsConfig(requests_per_minute=5, tokens_per_minute=2000, concurrent_requests=1)
    policy = LimitPolicy(when_unavailable=when, lease_s=1)
    with searching(limits, embedder=embedder, policy=policy) as router:
        answers: list[httpx.Response] = []
        thread = threading.Thread(target=lambda: answers.append(router.ask()))
        thread.start()
        wait_for(lambda: bool(embedder.calls))
        setattr(router.store, fault, True)
        embedder.free.set()
        thread.join()
        setattr(router.store, fault, False)

        assert answers[0].status_code == status
        wait_for(lambda: router.open() == 0)
        assert router.used(LimitName.TOKENS_PER_MINUTE) == used
        assert router.used(LimitName.REQUESTS_PER_MINUTE) == 1


def test_a_client_that_leaves_during_the_second_reservation_leaves_nothing_reserved() -> None:
    store = HoldingStore()
    with searching(LimitsConfig(tokens_per_minute=2000, concurrent_requests=1), store=store) as router:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(
                f"{router.served.url}{CHAT}",
                json={**BODY, "documents": DOCUMENTS},
                headers={"authorization": f"Bearer {KEY}"},
                timeout=2,
            )

        wait_for(lambda: router.open() == 0)
        (first, small), (second, large) = store.charges
        assert first == second
        assert small < large
        assert router.used(LimitName.TOKENS_PER_MINUTE) == 0


def test_a_search_keeps_its_reservation_longer_than_a_lease() -> None:
    embedder = HeldEmbedder()
    with searching(LimitsConfig(concurrent_requests=1), embedder=embedder) as router:
        answers: list[httpx.Response] = []
        thread = threading.Thread(target=lambda: answers.append(router.ask()))
        thread.start()
        wait_for(lambda: bool(embedder.calls))
        time.sleep(1.5)  # the lease is one second

        assert router.ask(documents=()).status_code == 429

        embedder.free.set()
        thread.join()
        assert answers[0].status_code == 200


@pytest.mark.parametrize(("model", "status"), [("frontier", 403), ("unknown", 404)])
def test_a_model_that_may_not_be_used_costs_no_search(model: str, status: int) -> None:
    with searching() as router:
        assert router.ask(model=model).status_code == status
        assert router.embedder.calls == []


def test_an_answer_that_is_given_again_by_its_idempotency_key_costs_no_search() -> None:
    with searching() as router:
        api = router.served.http
        assert api.post("/v1/collections", json={"name": "notes"}).status_code == 200
        asked: dict[str, Any] = {"retrieval": {"collections": ["notes"]}, "headers": {"idempotency-key": "k1"}}
        first = router.ask(documents=(), **asked)
        assert api.delete("/v1/collections/notes").status_code == 200  # a search would not find it

        again = router.ask(documents=(), **asked)

        assert again.headers["idempotent-replayed"] == "true"
        assert again.content == first.content


PRICES = PricesConfig(
    tiers={
        "fast": PriceConfig(input=1.0, output=10.0),
        "balanced": PriceConfig(input=2.0, output=20.0),
        "frontier": PriceConfig(input=4.0, output=40.0),
        "embeddings": PriceConfig(input=1.0, output=0.0),
    }
)
"""Of a million tokens: ten of an answer cost 1e-4 with the tier fast, and a search with its passages some 2e-4 more."""


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"max_cost": 0.00009}, 400),
        ({"max_cost": 0.00015}, 400),  # exceeded by the passages
        ({"max_cost": 0.001}, 200),
        ({"max_cost": 0.00015, "model": "balanced"}, 400),
        ({"max_cost": 0.00009, "model": "auto"}, 400),
        ({"max_cost": 0.004, "max_tokens": None}, 400),  # an answer may fill the context
    ],
)
def test_a_request_that_costs_too_much_whatever_is_found_costs_no_search(more: dict[str, Any], status: int) -> None:
    with searching(prices=PRICES, tiers=("fast", "balanced")) as router:
        answer = router.ask(**more)

        assert answer.status_code == status, answer.text
        found = more["max_cost"] in (0.00015, 0.001) and more.get("model") != "balanced"
        assert bool(router.embedder.calls) == found
        wait_for(lambda: router.open() == 0)
        if status == 400:
            error = answer.json()["error"]
            assert (error["code"], error["param"]) == ("max_cost_exceeded", "max_cost")


def test_passages_that_leave_less_room_for_an_expensive_answer_may_make_it_cheap_enough() -> None:
    """Without them the answer may have 1,000 tokens, which cost more than the rest of the context filled by both."""
    with searching(prices=PRICES) as router:
        retrieval = {"top_k": 64, "budget_tokens": 900}
        documents = [{"text": f"The harbour {place} is north of the town. " * 20} for place in range(8)]

        assert router.ask(documents=(), max_tokens=None, max_cost=0.0085).status_code == 400
        answer = router.ask(documents, max_tokens=None, retrieval=retrieval, max_cost=0.0085)

        assert answer.status_code == 200, answer.text


def test_a_request_that_spills_to_a_cheaper_tier_is_not_refused_for_its_price() -> None:
    spilling = FULL.model_copy(update={"spill": "any"})
    with searching(prices=PRICES, tiers=("fast", "balanced"), admission=spilling) as router:
        router.ask(model="balanced", max_cost=0.00015)  # its answer alone costs 0.0002 there

        assert router.embedder.calls != []


def test_a_conversation_that_is_shortened_for_its_passages_is_judged_by_what_is_left() -> None:
    prompts = PromptsConfig.model_validate({"overflow": {"policies": ["trim"], "answer_tokens": 16}})
    turns = [{"role": role, "content": "Well then. " * 150} for _ in range(5) for role in ("user", "assistant")]
    more: dict[str, Any] = {"messages": [*turns, *BODY["messages"]], "max_cost": 0.0015}
    with searching(prices=PRICES, prompts=prompts) as router:
        answer = router.ask(**more)
        assert answer.status_code == 200, answer.text
        assert router.ask(**{**more, "truncation": "disabled"}).json()["error"]["code"] == "max_cost_exceeded"


ONE = ClassAdmission(max_requests=1)
FULL = AdmissionConfig(tiers={"fast": TierAdmission(interactive=ONE, standard=ONE, batch=ONE)})
"""The settings of a service whose first tier is full with one request."""


def test_a_request_that_its_tier_has_no_room_for_costs_no_search() -> None:
    with searching(admission=FULL) as router, full(router):
        refused = router.ask()

        assert refused.status_code == 429
        assert "x-manta-refused" in refused.headers
        assert router.embedder.calls == []


def test_a_request_that_its_passages_take_to_a_tier_with_room_is_answered() -> None:
    auto = AutoConfig(thresholds={"balanced": 0.03})  # 150 tokens
    with searching(admission=FULL, auto=auto, tiers=("fast", "balanced")) as router, full(router):
        assert router.ask(documents=(), model="auto").status_code == 429

        answer = router.ask(model="auto")

        assert answer.status_code == 200, answer.text
        assert answer.headers["x-manta-tier"] == "balanced"


@contextmanager
def full(router: Searching) -> Iterator[None]:
    """The first tier has a request without a token, whose client leaves at the end."""
    router.served.backend = stalled = ScriptedBackend(stall_at=0)
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    connection = HTTPConnection(router.served.url.removeprefix("http://"))
    connection.request("POST", CHAT, json.dumps(BODY), headers)
    wait_for(lambda: bool(stalled.requests))
    router.served.backend = ScriptedBackend()
    yield
    connection.close()
    wait_for(lambda: bool(stalled.closed))
