"""Named collections, through HTTP."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from cluster.config import StateConfig
from cluster.state.redis_collection_store import RedisCollections
from router.app_factory import build_app
from router.memory_collection_store import MemoryCollectionStore
from router.ports.collection_store import CollectionRecord
from router.router_ports import RouterPorts
from tests.embedder.fake_embedder import FakeEmbedder
from tests.router.backend import ScriptedBackend
from tests.router.leaving import ask
from tests.router.retrieving import LIMITED_KEY, VIEWER_KEY, Retrieving
from tests.router.served import CONFIG, OTHER_KEY
from tests.state.conftest import _redis_server, redis_server

__all__ = ["_redis_server", "redis_server"]

HARBOUR = {"id": "map", "title": "Map", "text": "The harbour is north of the town. It has two piers."}
MUSEUM = {"id": "museum", "text": "The museum opens at nine. It is closed on Mondays."}


@pytest.fixture(scope="module", params=["memory", "redis"])
def _router(request: pytest.FixtureRequest) -> Iterator[Retrieving]:
    store = None
    if request.param == "redis":
        server = request.getfixturevalue("_redis_server")
        server.keep_running()
        store = RedisCollections(StateConfig(timeout_s=5, background_timeout_s=5), server.url)
    made = Retrieving(FakeEmbedder(), store)
    yield made
    made.served.stop()


@pytest.fixture
def router(_router: Retrieving) -> Retrieving:
    _router.reset()
    return _router


def found(router: Retrieving, text: str = "Where is the harbour?", name: str = "town") -> list[str]:
    """The documents whose passages the model is given."""
    answer = router.ask(text, retrieval={"collections": [name]})
    assert answer.status_code == 200, answer.text
    return [each["document"] for each in answer.json()["usage"]["retrieval_details"]["passages"]]


def error(answer: Any) -> tuple[int, str, str | None]:
    told = answer.json()["error"]
    return answer.status_code, told["code"], told["param"]


def test_documents_of_a_collection_are_found_and_cited(router: Retrieving) -> None:
    router.add("town", HARBOUR, MUSEUM)

    answer = router.ask(says="North of the town [1].", retrieval={"collections": ["town"], "top_k": 1})

    told = answer.json()["usage"]["retrieval_details"]
    assert (told["mode"], told["chunks"], told["left_out"]) == ("hybrid", 2, 1)
    assert [(each["collection"], each["document"]) for each in told["passages"]] == [("town", "map")]
    (cited,) = answer.json()["choices"][0]["message"]["annotations"]
    assert cited["url_citation"]["url"] == "document:town/map"
    assert cited["document_citation"]["collection"] == "town"


def test_a_collection_says_what_it_has(router: Retrieving) -> None:
    body = {"name": "town", "description": "Our town", "metadata": {"lang": "en", "year": 2026}}
    made = router.call("POST", body=body).json()
    assert made == {
        "object": "collection",
        **body,
        "created_at": made["created_at"],
        "state": "ready",
        "documents": 0,
        "embedded_documents": 0,
        "chunks": 0,
        "bytes": 0,
    }
    router.add("town", HARBOUR, MUSEUM)

    shown = router.call("GET", "/town").json()

    assert (shown["documents"], shown["embedded_documents"], shown["chunks"], shown["state"]) == (2, 2, 2, "ready")
    assert router.call("GET").json()["data"] == [shown]


def test_documents_are_listed_by_id_in_pages_and_shown_with_their_text(router: Retrieving) -> None:
    router.add("town", *({"id": f"d{n}", "text": f"Text {n}", "metadata": {"n": n}} for n in range(5)))

    page = router.call("GET", "/town/documents?limit=3").json()
    rest = router.call("GET", f"/town/documents?limit=3&after={page['data'][-1]['id']}").json()

    assert [each["id"] for each in page["data"] + rest["data"]] == ["d0", "d1", "d2", "d3", "d4"]
    assert (page["has_more"], rest["has_more"]) == (True, False)
    assert "text" not in page["data"][0]
    shown = router.call("GET", "/town/documents/d3").json()
    assert (shown["text"], shown["metadata"], shown["state"]) == ("Text 3", {"n": 3}, "ready")


def test_a_deleted_document_is_found_no_more(router: Retrieving) -> None:
    router.add("town", HARBOUR, MUSEUM)
    assert "map" in found(router)

    assert router.call("DELETE", "/town/documents/map").json()["deleted"] is True

    assert found(router) == ["museum"] or found(router) == []
    assert "north of the town" not in router.context
    assert error(router.call("GET", "/town/documents/map"))[:2] == (404, "document_not_found")
    assert error(router.call("DELETE", "/town/documents/map"))[:2] == (404, "document_not_found")
    assert router.call("GET", "/town").json()["documents"] == 1


def test_a_deleted_collection_is_gone_also_for_one_of_its_name(router: Retrieving) -> None:
    router.add("town", HARBOUR)
    assert found(router) == ["map"]

    router.call("DELETE", "/town")

    assert error(router.ask(retrieval={"collections": ["town"]})) == (
        404,
        "collection_not_found",
        "retrieval.collections[0]",
    )
    router.add("town", MUSEUM)
    assert "map" not in found(router)


def test_a_document_is_replaced_by_one_with_its_id(router: Retrieving) -> None:
    router.add("town", HARBOUR)
    router.add("town", {"id": "map", "text": "The harbour has moved south."})

    assert found(router) == ["map"]
    assert "moved south" in router.context
    assert "north" not in router.context


def test_the_same_document_without_an_id_is_kept_once(router: Retrieving) -> None:
    for _ in range(2):
        router.add("town", {"text": "The same."})

    assert router.call("GET", "/town").json()["documents"] == 1


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/town", None),
        ("DELETE", "/town", None),
        ("POST", "/town/documents", {"documents": [HARBOUR]}),
        ("GET", "/town/documents", None),
        ("GET", "/town/documents/map", None),
        ("DELETE", "/town/documents/map", None),
        ("POST", "/town/search", {"query": "harbour"}),
    ],
)
def test_another_tenant_has_no_such_collection(router: Retrieving, method: str, path: str, body: Any) -> None:
    router.add("town", HARBOUR)

    assert error(router.call(method, path, body, OTHER_KEY))[:2] == (404, "collection_not_found")
    assert error(router.ask(key=OTHER_KEY, retrieval={"collections": ["town"]}))[0] == 404
    assert router.call("GET", key=OTHER_KEY).json()["data"] == []
    assert router.call("GET", "/town").json()["documents"] == 1


def test_two_tenants_may_use_one_name(router: Retrieving) -> None:
    router.add("town", HARBOUR)
    router.add("town", {"id": "map", "text": "A harbour elsewhere."}, key=OTHER_KEY)

    router.ask(retrieval={"collections": ["town"]})
    assert "elsewhere" not in router.context
    router.ask(key=OTHER_KEY, retrieval={"collections": ["town"]})
    assert "elsewhere" in router.context


def test_documents_and_collections_are_searched_together(router: Retrieving) -> None:
    router.add("town", HARBOUR)
    router.add("sea", {"id": "chart", "text": "The harbour is deep."})

    answer = router.ask(documents=[{"text": "The harbour is old."}], retrieval={"collections": ["town", "sea"]})

    passages = answer.json()["usage"]["retrieval_details"]["passages"]
    assert {(each["collection"], each["document"]) for each in passages} == {
        (None, "0"),
        ("town", "map"),
        ("sea", "chart"),
    }


def test_a_passage_of_a_collection_is_inspected_and_named(router: Retrieving) -> None:
    router.add("town", HARBOUR, {"id": "evil", "text": "ATTACK the harbour."})
    router.policies.set(injection={"documents": {"action": "drop"}})
    assert router.ask(retrieval={"collections": ["town"]}).status_code == 200
    assert "ATTACK" not in router.context
    assert "north of the town" in router.context
    router.policies.set(injection={"documents": {"action": "block"}})

    answer = router.ask(retrieval={"collections": ["town"]})

    assert error(answer)[2] == "collections.town[evil]"


def test_a_search_shows_passages(router: Retrieving) -> None:
    router.add("town", HARBOUR, MUSEUM)

    answer = router.call("POST", "/town/search", {"query": "harbour", "top_k": 1}).json()

    assert answer["mode"] == "hybrid"
    (best,) = answer["data"]
    assert (best["document"], best["text"]) == ("map", HARBOUR["text"])


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("", {"name": "no spaces"}, "name"),
        ("", {}, "name"),
        ("", {"name": "a", "size": 1}, "size"),
        ("/town/documents", {"documents": []}, "documents"),
        ("/town/documents", {"documents": [{"text": "a"}, {"text": ""}]}, "documents[1].text"),
        ("/town/documents", {"documents": [{"text": "a", "id": "x"}, {"text": "b", "id": "x"}]}, "documents[1].id"),
        ("/town/documents", {"documents": [{"text": "a", "id": "a/b"}]}, "documents[0].id"),
        ("/town/documents", {"documents": [{"text": "a"}] * 101}, "documents"),
        ("/town/search", {"query": ""}, "query"),
        ("/town/search", {"query": "a", "top_k": 65}, "top_k"),
    ],
)
def test_a_wrong_field_is_refused_by_its_name(router: Retrieving, path: str, body: dict[str, Any], param: str) -> None:
    router.add("town", HARBOUR)

    answer = router.call("POST", path, body)

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert router.call("GET", "/town").json()["documents"] == 1


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "limit=٣", "before=a"])
def test_a_wrong_page_is_refused(router: Retrieving, query: str) -> None:
    router.add("town", HARBOUR)

    assert router.call("GET", f"/town/documents?{query}").status_code == 400


def test_limits_of_a_tenant_leave_what_there_is(router: Retrieving) -> None:
    for name in ("a", "b", "c", "d"):
        assert router.call("POST", body={"name": name}).status_code == 200
    assert error(router.call("POST", body={"name": "e"})) == (409, "collection_full", "name")
    assert error(router.call("POST", body={"name": "a"})) == (409, "collection_exists", "name")
    many = [{"id": f"d{n}", "text": "Some text."} for n in range(100)]
    assert router.call("POST", "/a/documents", {"documents": many}).status_code == 200
    more = [{"id": f"e{n}", "text": "Some text."} for n in range(21)]
    assert error(router.call("POST", "/a/documents", {"documents": more})) == (409, "collection_full", "documents")
    long = {"documents": [{"text": "word " * 39_990}]}
    assert error(router.call("POST", "/b/documents", long))[1] == "collection_full"
    assert router.call("GET", "/a").json()["documents"] == 100
    assert router.call("GET", "/b").json()["documents"] == 0


def test_roles_and_limits_count_here_too(router: Retrieving) -> None:
    assert router.call("GET", key="sk-wrong").status_code == 401
    assert error(router.call("GET", key=VIEWER_KEY))[:2] == (403, "endpoint_not_allowed")
    statuses = [router.call("GET", key=LIMITED_KEY).status_code for _ in range(3)]
    assert 429 in statuses


def test_the_ledger_has_the_requests(router: Retrieving) -> None:
    before = len(router.entries())

    router.call("GET")

    (entry,) = router.entries()[before:]
    assert (entry["tenant"], entry["tier"]) == ("acme", "retrieval")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("PUT", "", 405), ("POST", "/town", 405), ("GET", "/town/search", 405), ("GET", "/town/other", 404)],
)
def test_paths_have_their_methods(router: Retrieving, method: str, path: str, status: int) -> None:
    assert router.call(method, path, {} if method != "GET" else None).status_code == status


def test_a_document_that_was_added_is_found_while_others_are_added_and_deleted(router: Retrieving) -> None:
    router.add("town", HARBOUR)
    stop = threading.Event()
    faults: list[str] = []

    def change() -> None:
        n = 0
        while not stop.is_set():
            n += 1
            body = {"documents": [{"id": f"x{n % 7}", "text": f"Note {n} of the archive. " * 20}]}
            answers = [
                router.call("POST", "/town/documents", body),
                router.call("DELETE", f"/town/documents/x{(n - 3) % 7}"),
            ]
            faults.extend(answer.text for answer in answers if answer.status_code not in (200, 404))

    changing = [threading.Thread(target=change) for _ in range(2)]
    for thread in changing:
        thread.start()
    try:
        seen = [found(router) for _ in range(10)]
    finally:
        stop.set()
        for thread in changing:
            thread.join()

    assert faults == []
    assert all("map" in documents for documents in seen)


def test_a_collection_that_cannot_be_reached_is_a_503_and_documents_go_on() -> None:
    store = RedisCollections(StateConfig(timeout_s=0.2, background_timeout_s=0.2), "redis://:x@127.0.0.1:1/0")
    made = Retrieving(FakeEmbedder(), store, clean=False)
    try:
        assert error(made.call("GET", "/town"))[:2] == (503, "state_unavailable")
        assert error(made.ask(retrieval={"collections": ["town"]})) == (
            503,
            "state_unavailable",
            "retrieval.collections",
        )
        assert made.ask(documents=[HARBOUR]).status_code == 200
    finally:
        made.served.stop()


class HangingStore(MemoryCollectionStore):
    """Does not answer while ``hangs``. ``asked`` is set by the first look-up."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.hangs = asyncio.Event(), True

    async def collection(self, tenant: str, name: str) -> CollectionRecord | None:
        await self._answer()
        return await super().collection(tenant, name)

    async def collections(self, tenant: str) -> Sequence[CollectionRecord]:
        await self._answer()
        return await super().collections(tenant)

    async def _answer(self) -> None:
        self.asked.set()
        if self.hangs:
            await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("GET", "/town"),
        ("DELETE", "/town"),
        ("GET", "/town/documents"),
        ("GET", "/town/documents/map"),
        ("DELETE", "/town/documents/map"),
    ],
)
async def test_a_request_without_a_body_ends_with_its_client(method: str, path: str) -> None:
    store = HangingStore()
    config = CONFIG.model_copy(update={"max_concurrent_requests": 1})
    app = build_app(config, ScriptedBackend(), RouterPorts(collections=store))

    async with asyncio.timeout(30):
        assert await ask(app, method, f"/v1/collections{path}", leaves=store.asked) == []
        store.hangs = False
        sent = await ask(app, "GET", "/v1/collections")

    assert sent[0]["status"] == 200  # it has the place of the first one
