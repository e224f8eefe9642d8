"""What the guard does with documents that are stored, searched and cited, through HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

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

HARBOUR = {
    "id": "map",
    "title": "Map of ann@example.com",
    "text": "The harbour is north of the town. Ask bob@example.com for the two piers.",
}


@pytest.fixture(scope="module")
def _router() -> Iterator[Retrieving]:
    made = Retrieving(FakeEmbedder())
    yield made
    made.served.stop()


@pytest.fixture
def router(_router: Retrieving) -> Retrieving:
    _router.reset()
    return _router


def search(router: Retrieving, query: str = "Where is the harbour?") -> Any:
    return router.call("POST", "/town/search", {"query": query})


def test_a_document_is_stored_as_it_is_where_requests_are_redacted(router: Retrieving) -> None:
    router.policies.set(pii={"requests": "redact"})
    router.add("town", HARBOUR)

    assert router.call("GET", "/town/documents/map").json()["text"] == HARBOUR["text"]
    assert router.ask(retrieval={"collections": ["town"]}).status_code == 200
    assert "harbour is north" in router.context
    assert "@" not in router.context


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"text": "see bob@example.com"}, "documents[1].text"),
        ({"text": "x", "title": "bob@example.com"}, "documents[1].title"),
        ({"text": "x", "metadata": {"url": "https://example.org/bob@example.com"}}, "documents[1].metadata"),
        ({"text": "x", "metadata": {"card": 4111111111111111}}, "documents[1].metadata"),
    ],
)
def test_a_blocked_document_is_not_stored_nor_are_those_with_it(
    router: Retrieving, document: dict[str, Any], field: str
) -> None:
    router.add("town", {"text": "The town has a harbour."})
    router.policies.set(pii={"requests": "block"})

    answer = router.call("POST", "/town/documents", {"documents": [{"text": "fine"}, document]})

    assert answer.status_code == 400
    assert (answer.json()["error"]["code"], answer.json()["error"]["param"]) == ("content_filter", field)
    assert router.call("GET", "/town").json()["documents"] == 1


def test_the_results_of_a_search_are_answers(router: Retrieving) -> None:
    router.add("town", HARBOUR)
    router.policies.set(pii={"requests": "redact"})
    assert search(router).json()["data"][0]["text"] == HARBOUR["text"]

    router.policies.set(pii={"answers": "redact"})
    (found,) = search(router).json()["data"]

    assert found["title"] == "Map of <EMAIL_ADDRESS>"
    assert found["text"] == "The harbour is north of the town. Ask <EMAIL_ADDRESS> for the two piers."
    assert router.entries()[-1]["safety"]["decision"] == "redacted"


PIERS = {"id": "piers", "text": "The harbour has two piers."}


@pytest.mark.parametrize(
    ("policy", "document"),
    [
        ({"pii": {"answers": "block"}}, HARBOUR),
        ({"secrets": {"answers": "block"}}, {"text": "The harbour's key is AKIAIOSFODNN7EXAMPLQ."}),
        ({"phrases": {"block": ["zorblax"]}}, {"text": "The harbour zorblax."}),
        ({"phrases": {"block": ["zorblax"]}}, {"title": "Zorblax", "text": "The harbour is a title's."}),
        ({"retrieval": {"content": True}}, {"text": "The harbour does HARM."}),
        ({"retrieval": {"injection": True}}, {"text": "The harbour is under ATTACK."}),
        (
            {"retrieval": {"injection": True}, "injection": {"documents": {"action": "drop"}}},
            {"text": "The harbour is under ATTACK."},
        ),
        (
            {"retrieval": {"content": True}, "content_answers": {"block": 0.9, "review": 0.6}},
            {"text": "The harbour is in DOUBT."},
        ),
    ],
    ids=["pii", "secrets", "phrases", "title", "content", "injection", "dropped injection", "review"],
)
def test_a_result_that_is_blocked_is_left_out_and_counted(
    router: Retrieving, policy: dict[str, Any], document: dict[str, Any]
) -> None:
    router.add("town", document, PIERS)
    assert search(router).json()["filtered"] == 0
    router.policies.set(**policy)

    answer = search(router)

    assert answer.status_code == 200, answer.text
    assert answer.headers["x-manta-safety"] == "redacted"
    assert [each["document"] for each in answer.json()["data"]] == ["piers"]
    assert answer.json()["data"][0]["text"] == PIERS["text"]
    assert answer.json()["filtered"] == 1
    assert router.entries()[-1]["safety"]["decision"] == "redacted"


def test_results_that_a_broken_check_has_not_read_are_not_sent(router: Retrieving) -> None:
    router.add("town", PIERS)
    for when, status, safety in (("refuse", 503, "unscanned"), ("pass", 200, "unscanned")):
        router.policies.set(retrieval={"content": True}, content=None, when_unavailable=when)
        router.classifier.mode = "dead"
        answer = search(router)
        router.classifier.mode = "well"

        assert (answer.status_code, answer.headers["x-manta-safety"]) == (status, safety)
        assert status != 200 or answer.json()["filtered"] == 0


def test_a_key_that_is_shut_out_gets_no_results(router: Retrieving) -> None:
    router.add("town", PIERS)
    router.policies.set(phrases={"block": ["zorblax"]}, rate={"max_blocked": 1})
    assert router.ask("zorblax").status_code == 400

    assert search(router).json()["error"]["code"] == "content_filter"


def test_many_results_are_no_request_of_unusual_size(router: Retrieving) -> None:
    router.add("town", PIERS, {"text": "The harbour is old. " * 20})
    router.policies.set(retrieval={"content": True}, sizes={"max_characters": 60})

    assert len(search(router).json()["data"]) == 2


def test_the_header_says_what_the_guard_has_read(router: Retrieving) -> None:
    router.policies.set(phrases={"block": ["zorblax"]})
    router.add("town", PIERS)

    assert search(router).headers["x-manta-safety"] == "allowed"
    refused = router.call("POST", "/town/documents", {"documents": [{"text": "a zorblax"}]})
    assert refused.headers["x-manta-safety"] == "blocked"
    assert "x-manta-safety" not in router.call("GET", "/town").headers  # it has no text of the client
    router.policies.set(retrieval={"patterns": False})
    assert search(router).headers["x-manta-safety"] == "unscanned"


def test_a_blocked_query_is_not_searched_for(router: Retrieving) -> None:
    router.add("town", HARBOUR)
    router.policies.set(phrases={"block": ["zorblax"]})

    assert search(router, "zorblax").json()["error"]["param"] == "query"
    assert search(router).status_code == 200


def test_a_title_that_the_model_does_not_see_is_not_cited_either(router: Retrieving) -> None:
    router.add("town", HARBOUR)
    router.policies.set(pii={"requests": "redact"})

    answer = router.ask(says="It is north of the town [1].", retrieval={"collections": ["town"]})

    assert "@" not in answer.text
    (cited,) = answer.json()["choices"][0]["message"]["annotations"]
    assert cited["url_citation"]["title"] == "Map of <EMAIL_ADDRESS>"
    (passage,) = answer.json()["usage"]["retrieval_details"]["passages"]
    assert passage["title"] == "Map of <EMAIL_ADDRESS>"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("", {"name": "country", "description": "a DOUBT"}),
        ("/town/documents", {"documents": [{"text": "a DOUBT"}]}),
        ("/town/search", {"query": "a DOUBT"}),
        ("/old/search", {"query": "a bridge"}),
    ],
    ids=["description", "document", "query", "result"],
)
async def test_a_client_that_leaves_while_a_reviewer_decides_gives_its_place_back(
    path: str, body: dict[str, Any]
) -> None:
    people, policies, embedder = SlowPeople(), Policies(), FakeEmbedder()
    guard = PolicyGuard(policies, Parts(ScriptedClassifier()), oversight=people)
    ledger = MemoryStore(SystemClock())
    config = CONFIG.model_copy(update={"max_concurrent_requests": 1})
    app = build_app(
        config, ScriptedBackend(), RouterPorts(store=ledger, make_guard=lambda *_: guard, embedder=embedder)
    )
    for name, text in (("town", "a harbour"), ("old", "a bridge in DOUBT")):
        await post(app, "/v1/collections", {"name": name})
        await post(app, f"/v1/collections/{name}/documents", {"documents": [{"text": text}]})
    bands, waits = {"block": 0.9, "review": 0.6}, {"action": "wait", "wait_s": 3600}
    policies.set(retrieval={"content": True}, deadline_s=60, review=waits, content_answers=bands)

    async with asyncio.timeout(30):
        assert await post(app, f"/v1/collections{path}", body, people.asked) == []
        embedded = len(embedder.calls)
        sent = await post(app, "/v1/collections", {"name": "country", "description": "fine"})

    assert sent[0]["status"] == 200  # the first one was not created
    assert len(embedder.calls) == embedded
    assert len(ledger._entries) == 6
    sent = await post(app, "/v1/collections/town/search", {"query": "a harbour"})
    assert len(json.loads(sent[1]["body"])["data"]) == 1  # nothing was stored
