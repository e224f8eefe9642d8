"""What the guard does with documents that are stored, searched and cited, through HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.embedder.fake_embedder import FakeEmbedder
from tests.router.retrieving import Retrieving

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
    router.policies.set(pii={"answers": "block"})
    assert search(router).json()["error"]["param"] == "data[0].title"


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
