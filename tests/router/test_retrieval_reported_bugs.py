"""What users of others' retrieval have reported, tried over HTTP: sources and citations."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.router.retrieving import Retrieving, embedding

HARBOUR = "The harbour is north of the town. It has two piers."
MUSEUM = "The museum opens at nine. It is closed on Mondays."


@pytest.fixture(scope="module")
def _retrieving() -> Iterator[Retrieving]:
    made = embedding()
    yield made
    made.served.stop()


@pytest.fixture
def retrieving(_retrieving: Retrieving) -> Retrieving:
    _retrieving.reset()
    return _retrieving


def test_a_document_that_comes_twice_moves_no_citation(retrieving: Retrieving) -> None:
    """langgenius/dify 1661: places in the list without copies were taken for places in the list with them."""
    documents = [{"id": "a", "text": HARBOUR}, {"id": "b", "text": HARBOUR}, {"id": "c", "text": MUSEUM}]
    told = retrieving.ask(documents=documents).json()["usage"]["retrieval_details"]["passages"]
    number = {each["document"]: each["number"] for each in told}["c"]
    answer = retrieving.ask(says=f"It opens at nine [{number}].", documents=documents)
    (found,) = answer.json()["choices"][0]["message"]["annotations"]
    cited = found["document_citation"]
    assert (cited["document"], MUSEUM[cited["start"] : cited["end"]]) == ("c", "The museum opens at nine.")


@pytest.mark.parametrize("budget", [128, 300])
def test_the_sources_are_those_that_the_model_was_given(retrieving: Retrieving, budget: int) -> None:
    """nageoffer/ragent 137: sources were listed that had not fitted into the prompt."""
    documents = [{"id": f"d{n}", "text": f"Pier {n} of the harbour is {n} metres long. " * 4} for n in range(12)]
    told = retrieving.ask(documents=documents, retrieval={"budget_tokens": budget}).json()
    passages = told["usage"]["retrieval_details"]["passages"]
    shown = re.findall(r"<passage (\d+)", retrieving.context)
    assert [str(each["number"]) for each in passages] == shown
    for each in passages:
        assert f"Pier {each['document'][1:]} of the harbour" in retrieving.context


@pytest.mark.parametrize("text", ["", " \n\t", "…", "🙂"])
def test_a_document_without_words_harms_no_other_one(retrieving: Retrieving, text: str) -> None:
    """open-webui 16896, haystack 11598: a blank page made the search divide by zero."""
    answer = retrieving.ask(documents=[{"text": text}, {"id": "m", "text": MUSEUM}])
    if answer.status_code == 400:
        assert "documents" in answer.json()["error"]["param"]
        return
    assert answer.status_code == 200
    assert "opens at nine" in retrieving.context


def test_documents_without_spaces_between_words_are_found(retrieving: Retrieving) -> None:
    """claude-obsidian 120, hindsight 1077, 3689: a sentence in Chinese or Japanese was one term."""
    noise = [{"text": f"本周第{n}天天气晴朗，田野一片绿色。" * 8} for n in range(40)]
    documents = [*noise[:20], {"id": "harbour", "text": "港口位于城市的北边，有两个码头。"}, *noise[20:]]
    answer = retrieving.ask("港口在哪里？", documents=documents, retrieval={"budget_tokens": 300, "mode": "bm25"})
    told = answer.json()["usage"]["retrieval_details"]["passages"]
    assert "harbour" in [each["document"] for each in told]
