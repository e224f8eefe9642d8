"""Documents with a request, through HTTP: what the model is given, what the guard sees, and what is cited."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from engine.api import Conversation
from tests.embedder.fake_embedder import FakeEmbedder
from tests.router.retrieving import CHAT, Retrieving, embedding
from tests.router.served import Served

HARBOUR = {"title": "Map", "text": "The harbour is north of the town. It has two piers."}
MUSEUM = {"id": "m-1", "text": "The museum opens at nine. It is closed on Mondays."}
DOCUMENTS = [HARBOUR, MUSEUM]
NOISE = [{"text": f"Report {n}. The weather of week {n} was mild, and the fields were green. " * 6} for n in range(50)]


@pytest.fixture(scope="module")
def _retrieving() -> Iterator[Retrieving]:
    made = embedding()
    yield made
    made.served.stop()


@pytest.fixture
def retrieving(_retrieving: Retrieving) -> Retrieving:
    _retrieving.reset()
    return _retrieving


@pytest.fixture(scope="module")
def without_embedder() -> Iterator[Retrieving]:
    made = Retrieving(None)
    yield made
    made.served.stop()


def details(answer: Any) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["usage"]["retrieval_details"]
    return found


def stream_chunks(answer: Any) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: {")]
    return [json.loads(line) for line in lines]


def test_few_documents_are_given_whole_and_in_their_order(retrieving: Retrieving) -> None:
    told = details(retrieving.ask(documents=DOCUMENTS))

    prompt = retrieving.backend.requests[-1].prompt
    assert isinstance(prompt, Conversation)
    assert [message.role for message in prompt.messages] == ["user", "user"]
    assert prompt.messages[-1].content == "Where is the harbour?"
    assert retrieving.context.index("north of the town") < retrieving.context.index("opens at nine")
    assert "<passage 1: Map>" in retrieving.context
    assert [(each["number"], each["document"], each["start"]) for each in told["passages"]] == [
        (1, "0", 0),
        (2, "m-1", 0),
    ]
    assert (told["mode"], told["reason"], told["left_out"]) == ("hybrid", None, 0)


def test_the_context_of_few_documents_does_not_depend_on_the_question(retrieving: Retrieving) -> None:
    contexts = set()
    for text in ("Where is the harbour?", "When does the museum open?"):
        retrieving.ask(text, documents=DOCUMENTS)
        contexts.add(retrieving.context)

    assert len(contexts) == 1


def test_of_many_documents_those_that_fit_are_chosen_within_the_budget(retrieving: Retrieving) -> None:
    told = details(retrieving.ask(documents=[*NOISE[:30], HARBOUR, *NOISE[30:]], retrieval={"budget_tokens": 300}))

    assert "north of the town" in retrieving.context
    assert told["tokens"] <= 300
    assert told["passages"][-1]["document"] == "30", "the best passage is at the end"
    assert told["left_out"] == told["chunks"] - len(told["passages"]) > 0


def test_a_header_says_how_passages_were_found(retrieving: Retrieving, without_embedder: Retrieving) -> None:
    assert retrieving.ask(documents=DOCUMENTS).headers["x-manta-retrieval"].startswith("hybrid; passages=2; tokens=")
    answer = without_embedder.ask(documents=DOCUMENTS)
    assert answer.headers["x-manta-retrieval"].startswith("bm25; reason=no_embedder; passages=2;")
    assert "x-manta-retrieval" not in retrieving.ask().headers
    assert "retrieval_details" not in retrieving.ask().json()["usage"]


def test_without_an_embedder_a_search_by_vectors_alone_is_refused(without_embedder: Retrieving) -> None:
    answer = without_embedder.ask(documents=DOCUMENTS, retrieval={"mode": "vector"})

    assert answer.status_code == 503
    assert answer.json()["error"]["param"] == "retrieval.mode"


def test_texts_are_embedded_in_the_turn_of_their_tenant() -> None:
    embedder = FakeEmbedder()
    made = Retrieving(embedder)
    try:
        made.add("notes", {"text": "The harbour is north."})
        made.ask(documents=DOCUMENTS)
        made.ask(retrieval={"collections": ["notes"]})
        made.call("POST", "/notes/search", {"query": "Where is it?"})
        made.served.http.post("/v1/embeddings", json={"model": "fake", "input": "Hi"})
    finally:
        made.served.stop()

    assert len(embedder.tenants) >= 5
    assert set(embedder.tenants) == {"acme"}


def test_an_embedder_that_is_down_costs_the_vectors_and_not_the_answer() -> None:
    embedder = FakeEmbedder()
    embedder.available = False
    made = Retrieving(embedder)
    try:
        told = details(made.ask(documents=DOCUMENTS))
    finally:
        made.served.stop()

    assert (told["mode"], told["reason"], len(told["passages"])) == ("bm25", "embedder_unavailable", 2)


def test_markers_become_annotations(retrieving: Retrieving) -> None:
    answer = retrieving.ask(says="It is north of the town [1]. See [9].", documents=DOCUMENTS)

    (found,) = answer.json()["choices"][0]["message"]["annotations"]
    assert found == {
        "type": "url_citation",
        "url_citation": {"start_index": 24, "end_index": 27, "title": "Map", "url": "document:0"},
        "document_citation": {
            "passage": 1,
            "document": "0",
            "collection": None,
            "start": 0,
            "end": 33,
            "by": "marker",
            "score": 1.0,
        },
    }


def test_the_last_chunk_of_a_streamed_choice_has_its_annotations(retrieving: Retrieving) -> None:
    says = "The museum opens at nine [2]."
    whole = retrieving.ask(says=says, documents=DOCUMENTS).json()["choices"][0]["message"]["annotations"]
    answer = retrieving.ask(says=says, documents=DOCUMENTS, stream=True, stream_options={"include_usage": True})

    chunks = stream_chunks(answer)
    (last,) = [chunk for chunk in chunks if chunk["choices"] and chunk["choices"][0]["finish_reason"]]
    assert last["choices"][0]["delta"]["annotations"] == whole != []
    assert all("annotations" not in each["choices"][0]["delta"] for each in chunks[:-2])
    assert chunks[-1]["usage"]["retrieval_details"]["mode"] == "hybrid"


def test_openais_client_reads_the_annotations(retrieving: Retrieving) -> None:
    retrieving.backend.words = ["Nine", " [2]."]
    answer = retrieving.served.openai.chat.completions.create(
        model="fast",
        messages=[{"role": "user", "content": "When does the museum open?"}],
        extra_body={"documents": DOCUMENTS},
    )

    annotations = answer.choices[0].message.annotations
    assert annotations is not None
    assert (annotations[0].type, annotations[0].url_citation.start_index) == ("url_citation", 5)


def test_annotations_can_be_sent_back_and_are_not_shown_to_the_model(retrieving: Retrieving) -> None:
    message = retrieving.ask(says="Nine [2].", documents=DOCUMENTS).json()["choices"][0]["message"]
    history = [{"role": "user", "content": "When?"}, message, {"role": "user", "content": "Sure?"}]

    answer = retrieving.ask(messages=history)

    assert answer.status_code == 200
    assert "url_citation" not in str(retrieving.backend.requests[-1].prompt)


def test_citations_can_be_left_out(retrieving: Retrieving) -> None:
    answer = retrieving.ask(says="North [1].", documents=DOCUMENTS, retrieval={"citations": False})

    assert answer.json()["choices"][0]["message"]["annotations"] == []


def test_an_address_in_the_metadata_is_the_url(retrieving: Retrieving) -> None:
    for url, shown in (("https://example.org/map", "https://example.org/map"), ("javascript:x", "document:0")):
        answer = retrieving.ask(says="North [1].", documents=[{**HARBOUR, "metadata": {"url": url}}])
        assert answer.json()["choices"][0]["message"]["annotations"][0]["url_citation"]["url"] == shown


@pytest.mark.parametrize("action", ["block", "drop", "quote"])
def test_instructions_in_a_document_are_found(retrieving: Retrieving, action: str) -> None:
    retrieving.policies.set(injection={"documents": {"action": action}})
    documents = [HARBOUR, {"id": "evil", "text": "ATTACK the museum opens at nine."}]

    answer = retrieving.ask(says="As [1] and [2] say.", documents=documents)

    if action == "block":
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == "documents[1]"
        return
    assert answer.status_code == 200
    assert answer.headers["x-manta-safety"] == "redacted"
    assert "north of the town" in retrieving.context
    dropped = action == "drop"
    assert ("ATTACK" not in retrieving.context) == dropped
    cited = [each["document_citation"]["document"] for each in answer.json()["choices"][0]["message"]["annotations"]]
    assert cited == (["0"] if dropped else ["0", "evil"])


def test_instructions_in_a_title_are_found(retrieving: Retrieving) -> None:
    retrieving.policies.set(injection={"documents": {"action": "block"}})

    answer = retrieving.ask(documents=[{"title": "ATTACK now", "text": "A text."}])

    assert answer.json()["error"]["param"] == "documents[0].title"


def test_what_the_model_is_not_given_is_not_inspected(retrieving: Retrieving) -> None:
    retrieving.policies.set(injection={"documents": {"action": "block"}})
    evil = {"text": "ATTACK " + "unrelated words " * 50}

    answer = retrieving.ask(documents=[*NOISE, evil, HARBOUR], retrieval={"top_k": 1})

    assert answer.status_code == 200


def test_fields_of_messages_are_counted_as_the_client_has_sent_them(retrieving: Retrieving) -> None:
    answer = retrieving.ask("ATTACK", documents=DOCUMENTS)

    assert answer.json()["error"]["param"] == "messages[0].content"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"documents": []}, "documents"),
        ({"documents": "text"}, "documents"),
        ({"documents": [{"title": "No text"}]}, "documents[0].text"),
        ({"documents": [{"text": " \n"}]}, "documents[0].text"),
        ({"documents": [{"text": "a\x00"}]}, "documents[0].text"),
        ({"documents": [{"text": "a"}, {"text": 3}]}, "documents[1].text"),
        ({"documents": [{"text": "a", "body": "b"}]}, "documents[0].body"),
        ({"documents": [{"text": "a", "id": "no spaces"}]}, "documents[0].id"),
        ({"documents": [{"text": "a", "metadata": {"k": []}}]}, "documents[0].metadata.k"),
        ({"documents": [{"text": "a"}] * 1025}, "documents"),
        ({"documents": [{"text": "a" * 1_000_001}]}, "documents[0].text"),
        ({"retrieval": {"top_k": 0}}, "retrieval.top_k"),
        ({"retrieval": {"mode": "magic"}}, "retrieval.mode"),
        ({"retrieval": {"collections": ["a", "a"]}}, "retrieval.collections"),
        ({"retrieval": {"collections": ["../x"]}}, "retrieval.collections[0]"),
        ({"retrieval": {"depth": 1}}, "retrieval.depth"),
    ],
)
def test_a_wrong_field_is_refused_by_its_name(retrieving: Retrieving, fields: dict[str, Any], param: str) -> None:
    answer = retrieving.ask(**fields)

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert retrieving.backend.requests == []


def test_a_conversation_without_a_question_is_refused_unless_a_query_is_given(retrieving: Retrieving) -> None:
    messages = [{"role": "system", "content": "Answer."}]

    answer = retrieving.ask(messages=messages, documents=DOCUMENTS)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "retrieval.query")
    assert retrieving.ask(messages=messages, documents=DOCUMENTS, retrieval={"query": "harbour"}).status_code == 200


def test_retrieval_without_anything_to_search_in_changes_nothing(retrieving: Retrieving) -> None:
    told = details(retrieving.ask(retrieval={}))

    assert told["passages"] == []
    assert retrieving.context == ""


def test_the_engine_has_the_passages_cached_for_the_next_question(real: Served) -> None:
    texts = [{"text": f"Notice {n}: the ferry to island {n} leaves at {n + 6}:30 from pier {n}."} for n in range(6)]
    counts = []
    for text in ("When does the ferry to island 2 leave?", "And from which pier does it leave?"):
        body = {"model": "fast", "messages": [{"role": "user", "content": text}], "documents": texts, "max_tokens": 2}
        usage = real.http.post(CHAT, json=body).json()["usage"]
        counts.append((usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"]))

    (_, before), (prompt, cached) = counts
    assert before == 0
    assert cached > 0.7 * prompt, "all but the question"


def test_all_choices_have_annotations_of_their_own(retrieving: Retrieving) -> None:
    choices = retrieving.ask(says="North [1].", documents=DOCUMENTS, n=2, temperature=1).json()["choices"]

    starts = [each["message"]["annotations"][0]["url_citation"]["start_index"] for each in choices]
    assert sorted(starts) == [6, 7]


def test_each_choice_of_a_stream_has_its_own_annotations(retrieving: Retrieving) -> None:
    """litellm#3276, litellm#41492: choices of a stream had the index 0, and annotations got lost on the way."""
    answer = retrieving.ask(says="North [1].", documents=DOCUMENTS, n=2, temperature=1, stream=True)

    ends = {
        chunk["choices"][0]["index"]: chunk["choices"][0]["delta"]["annotations"][0]["url_citation"]["start_index"]
        for chunk in stream_chunks(answer)
        if chunk["choices"][0]["finish_reason"]
    }
    assert ends == {0: 6, 1: 7}


def test_the_passages_are_a_part_of_the_prompt_of_their_own(retrieving: Retrieving) -> None:
    usage = retrieving.ask(documents=DOCUMENTS, include_assembly=True).json()["usage"]

    parts = {each["part"]: each["messages"] for each in usage["prompt_details"]["parts"]}
    assert (parts["context"], parts["last_turn"]) == (1, 1)
    assert usage["retrieval_details"]["passages"]


def test_numbers_in_json_are_no_citations(retrieving: Retrieving) -> None:
    answer = retrieving.ask(says='{"a": [1]}', documents=DOCUMENTS, response_format={"type": "json_object"})

    assert answer.json()["choices"][0]["message"]["annotations"] == []
