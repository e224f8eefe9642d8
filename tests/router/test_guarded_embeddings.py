"""What the guard does with texts to embed, through HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from router.app_factory import build_app
from router.memory_store import MemoryStore
from router.ports.clock import SystemClock
from router.router_ports import RouterPorts
from safety.compiled_policy import Parts
from safety.guard import PolicyGuard
from tests.embedder.fake_embedder import FakeEmbedder
from tests.router.backend import ScriptedBackend
from tests.router.leaving import SlowPeople, post
from tests.router.policies import Policies
from tests.router.retrieving import CONFIG, Retrieving
from tests.safety.scripted_classifier import ScriptedClassifier

MAIL = "Write to ann@example.com"


@pytest.fixture(scope="module")
def _router() -> Iterator[Retrieving]:
    made = Retrieving(FakeEmbedder())
    yield made
    made.served.stop()


@pytest.fixture
def router(_router: Retrieving) -> Retrieving:
    _router.reset()
    _router.classifier.mode = "well"
    embedder(_router).calls.clear()
    _router.ledger._entries.clear()
    return _router


def embedder(router: Retrieving) -> FakeEmbedder:
    found = router.served_embedder
    assert isinstance(found, FakeEmbedder)
    return found


def embed(router: Retrieving, *texts: str) -> httpx.Response:
    return router.served.http.post("/v1/embeddings", json={"model": "fake", "input": list(texts)})


@pytest.mark.parametrize("requests", ["redact", "pseudonymise"])
def test_personal_data_is_not_embedded(router: Retrieving, requests: str) -> None:
    router.policies.set(pii={"requests": requests})

    answer = embed(router, "a bridge", MAIL)

    assert answer.headers["x-manta-safety"] == "redacted"
    assert embedder(router).calls == [["a bridge", "Write to <EMAIL_ADDRESS>"]]
    (entry,) = router.entries()
    assert entry["safety"]["decision"] == "redacted"
    assert entry["safety"]["policy"]
    same = embed(router, "Write to <EMAIL_ADDRESS>").json()["data"][0]["embedding"]
    assert answer.json()["data"][1]["embedding"] == same  # the mark is the same in every request


@pytest.mark.parametrize("on_block", ["error", "answer"])
def test_a_blocked_text_is_an_error_as_in_chat_and_costs_no_tokens(router: Retrieving, on_block: str) -> None:
    router.policies.set(pii={"requests": "block"}, on_block=on_block, refusal="Acme says no.")

    answer = embed(router, "a bridge", MAIL)

    assert answer.status_code == 400
    assert answer.json()["error"] == {
        "message": "Acme says no.",
        "type": "invalid_request_error",
        "param": "input[1]",
        "code": "content_filter",
    }
    assert answer.headers["x-manta-safety"] == "blocked"
    assert embedder(router).calls == []
    (entry,) = router.entries()
    assert (entry["error"], entry["input_tokens"], entry["safety"]["decision"]) == ("content_filter", 0, "blocked")


def test_harmful_texts_are_embedded_unless_the_policy_says_otherwise(router: Retrieving) -> None:
    assert embed(router, "HARM and ATTACK").headers["x-manta-safety"] == "unscanned"  # nothing is looked for
    router.policies.set(phrases={"block": ["zorblax"]})
    assert embed(router, "HARM and ATTACK").headers["x-manta-safety"] == "allowed"
    router.policies.set(retrieval={"content": True})
    assert embed(router, "HARM").json()["error"]["code"] == "content_filter"
    assert embed(router, "ATTACK").status_code == 200
    router.policies.set(retrieval={"injection": True})
    assert embed(router, "ATTACK").json()["error"]["code"] == "content_filter"


@pytest.mark.parametrize(("unavailable", "status", "label"), [("refuse", 503, "unscanned"), ("pass", 200, "unscanned")])
def test_a_classifier_that_is_away(router: Retrieving, unavailable: str, status: int, label: str) -> None:
    router.policies.set(retrieval={"content": True}, when_unavailable=unavailable)
    router.classifier.mode = "dead"

    answer = embed(router, "a bridge")

    assert (answer.status_code, answer.headers["x-manta-safety"]) == (status, label)
    if status == 503:
        assert answer.json()["error"]["code"] == "safety_unavailable"
        assert embedder(router).calls == []


def test_a_user_who_is_kept_out_of_chat_is_kept_out_of_embeddings(router: Retrieving) -> None:
    router.policies.set(rate={"max_blocked": 1, "window_s": 60}, phrases={"block": ["zorblax"]})
    blocked: Any = router.ask("a zorblax")

    assert blocked.status_code == 400
    assert embed(router, "a bridge").json()["error"]["code"] == "content_filter"
    assert router.ask("Hello", user="another").status_code == 200


async def test_a_client_that_leaves_while_a_reviewer_decides_gives_its_place_back() -> None:
    people, policies, embedder = SlowPeople(), Policies(), FakeEmbedder()
    policies.set(retrieval={"content": True}, review={"action": "wait", "wait_s": 3600}, deadline_s=60)
    guard = PolicyGuard(policies, Parts(ScriptedClassifier()), oversight=people)
    ledger = MemoryStore(SystemClock())
    config = CONFIG.model_copy(update={"max_concurrent_requests": 1})
    ports = RouterPorts(store=ledger, make_guard=lambda *_: guard, embedder=embedder)
    app = build_app(config, ScriptedBackend(), ports)

    async with asyncio.timeout(30):
        sent = await post(app, "/v1/embeddings", {"model": "fake", "input": "a DOUBT"}, people.asked)
        assert (sent, embedder.calls) == ([], [])
        sent = await post(app, "/v1/embeddings", {"model": "fake", "input": "a bridge"})

    assert sent[0]["status"] == 200
    assert embedder.calls == [["a bridge"]]
    assert len(ledger._entries) == 2
