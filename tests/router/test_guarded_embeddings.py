"""What the guard does with texts to embed, through HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.embedder.fake_embedder import FakeEmbedder
from tests.router.retrieving import Retrieving

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


def test_a_key_that_is_kept_out_of_chat_is_kept_out_of_embeddings(router: Retrieving) -> None:
    router.policies.set(rate={"max_blocked": 1, "window_s": 60}, phrases={"block": ["zorblax"]})
    blocked: Any = router.ask("a zorblax", user="one")

    assert blocked.status_code == 400
    assert embed(router, "a bridge").json()["error"]["code"] == "content_filter"
    assert router.ask("Hello", user="another").json()["error"]["code"] == "content_filter"
