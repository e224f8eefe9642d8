"""/v1/embeddings, through OpenAI's own client and against OpenAI's own schema."""

from __future__ import annotations

import base64
import gzip
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import numpy as np
import openai
import pytest

from router.config.embeddings import EmbeddingsConfig
from router.config.keys import KeyConfig
from router.config.limits import LimitsConfig
from router.config.prices import PriceConfig, PricesConfig
from router.config.tenants import TenantConfig
from router.memory_store import MemoryStore
from router.ports.clock import SystemClock
from router.ports.ledger_store import LedgerEntry
from tests.embedder.fake_embedder import FakeEmbedder
from tests.router.served import CONFIG, KEY, OTHER_KEY, Served

SPEC = Path(__file__).resolve().parents[3] / "shared" / "data" / "openai" / "openapi.json.gz"
PATH = "/v1/embeddings"
ALIAS = "text-embedding-3-small"
LIMITED_KEY, BARRED_KEY = "sk-limited", "sk-barred"


class Entries(MemoryStore):
    """A store that notes the documents of ledger entries."""

    def __init__(self) -> None:
        super().__init__(SystemClock())
        self.documents: list[dict[str, Any]] = []

    def record(self, entry: LedgerEntry) -> None:
        self.documents.append(json.loads(entry.document))
        super().record(entry)


class Embedding(Served):
    """A router with the fake embedder."""

    def __init__(self) -> None:
        self.embedder = FakeEmbedder()
        self.store = Entries()
        keys = (
            *CONFIG.keys,
            KeyConfig(key=LIMITED_KEY, tenant="small", team="x"),
            KeyConfig(key=BARRED_KEY, tenant="acme", team="x", models=("fast",)),
        )
        prices = PricesConfig(version="p1", tiers={"embeddings": PriceConfig(input=2.0, output=0)})
        changes = {
            "keys": keys,
            "prices": prices,
            "tenants": {"small": TenantConfig(limits=LimitsConfig(tokens_per_minute=60))},
            "embeddings": EmbeddingsConfig(aliases=(ALIAS,)),
        }
        super().__init__(CONFIG.model_copy(update=changes), self.store, embedder=self.embedder)

    def post(self, body: Any, key: str = KEY) -> Any:
        return self.http.post(PATH, json=body, headers={"authorization": f"Bearer {key}"})

    def reset(self) -> None:
        self.embedder.available, self.embedder.stuck = True, False
        self.embedder.calls.clear()
        self.store.documents.clear()


@pytest.fixture(scope="module")
def _made() -> Iterator[Embedding]:
    made = Embedding()
    yield made
    made.stop()


@pytest.fixture
def embedding(_made: Embedding) -> Embedding:
    _made.reset()
    return _made


@pytest.mark.parametrize("encoding_format", ["float", "base64", openai.NOT_GIVEN])
@pytest.mark.parametrize("texts", ["a bridge", ["a bridge", "two stones", "a bridge"]])
async def test_each_text_has_its_vector(embedding: Embedding, texts: Any, encoding_format: Any) -> None:
    answer = embedding.openai.embeddings.create(model="fake", input=texts, encoding_format=encoding_format)

    vectors, tokens, _ = await FakeEmbedder().embed([texts] if isinstance(texts, str) else texts)
    assert [each.index for each in answer.data] == list(range(len(vectors)))
    found = [each.embedding for each in answer.data]
    if encoding_format == "base64":
        found = [np.frombuffer(base64.b64decode(str(each)), "<f4").tolist() for each in found]
    np.testing.assert_allclose(found, vectors, atol=1e-9 if encoding_format != "float" else 6e-10)
    assert answer.model == "fake@1"
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == sum(tokens)


def test_fewer_dimensions_have_length_one_again(embedding: Embedding) -> None:
    whole = embedding.openai.embeddings.create(model="fake", input="a bridge").data[0].embedding
    cut = embedding.openai.embeddings.create(model="fake", input="a bridge", dimensions=10).data[0].embedding
    same = embedding.openai.embeddings.create(model="fake", input="a bridge", dimensions=64).data[0].embedding

    np.testing.assert_allclose(np.linalg.norm(cut), 1, atol=1e-6)
    np.testing.assert_allclose(cut, np.array(whole[:10]) / np.linalg.norm(whole[:10]), atol=1e-6)
    assert same == whole


@pytest.mark.skipif(not SPEC.exists(), reason=f"OpenAI's specification is not at {SPEC}")
def test_the_response_follows_openais_schema(embedding: Embedding) -> None:
    spec = json.loads(gzip.decompress(SPEC.read_bytes()))
    answer = embedding.post({"input": ["a", "b"], "model": "fake"}).json()

    jsonschema.validate(
        answer, {**spec["components"]["schemas"]["CreateEmbeddingResponse"], "components": spec["components"]}
    )


@pytest.mark.parametrize("name", ["fake", "fake@1", ALIAS])
def test_the_model_has_its_name_its_version_and_aliases(embedding: Embedding, name: str) -> None:
    assert embedding.openai.embeddings.create(model=name, input="a").model == "fake@1"


def test_the_models_are_listed_with_their_version_and_length(embedding: Embedding) -> None:
    listed = {model["id"]: model for model in embedding.http.get("/v1/models").json()["data"]}

    assert {"fake", ALIAS, "auto"} <= set(listed)
    assert (listed["fake"]["root"], listed[ALIAS]["context_length"]) == ("fake@1", 256)
    assert embedding.openai.models.retrieve(ALIAS).id == ALIAS
    barred = embedding.http.get("/v1/models", headers={"authorization": f"Bearer {BARRED_KEY}"}).json()["data"]
    assert [model["id"] for model in barred] == ["fast"]


@pytest.mark.parametrize(
    ("changes", "status", "code", "field"),
    [
        ({"input": []}, 400, "invalid_value", "input"),
        ({"input": ""}, 400, "invalid_value", "input"),
        ({"input": ["a", ""]}, 400, "invalid_value", "input[1]"),
        ({"input": None}, 400, "invalid_value", "input"),
        ({"input": {"text": "a"}}, 400, "invalid_value", "input"),
        ({"input": ["a", 1]}, 400, "invalid_value", "input[1]"),
        ({"input": ["a\x00"]}, 400, "invalid_value", "input[0]"),
        ({"input": ["a"] * 2049}, 400, "invalid_value", "input"),
        ({"input": [1, 2, 3]}, 400, "invalid_value", "input"),
        ({"input": [[1, 2], [3]]}, 400, "invalid_value", "input"),
        ({"input": "word " * 255}, 400, "context_length_exceeded", "input"),
        ({"input": ["a", "word " * 255]}, 400, "context_length_exceeded", "input[1]"),
        ({"dimensions": 65}, 400, "invalid_value", "dimensions"),
        ({"dimensions": 0}, 400, "invalid_value", "dimensions"),
        ({"dimensions": "8"}, 400, "invalid_value", "dimensions"),
        ({"encoding_format": "int8"}, 400, "invalid_value", "encoding_format"),
        ({"model": "fast"}, 404, "model_not_found", "model"),
        ({"model": "fake@2"}, 404, "model_not_found", "model"),
        ({"truncate": True}, 400, "unknown_parameter", "truncate"),
    ],
)
def test_a_bad_request_is_refused_by_its_field(
    embedding: Embedding, changes: dict[str, Any], status: int, code: str, field: str
) -> None:
    answer = embedding.post({"input": "a", "model": "fake", **changes})

    assert (answer.status_code, answer.json()["error"]["code"], answer.json()["error"]["param"]) == (
        status,
        code,
        field,
    )


def test_a_missing_field_is_named(embedding: Embedding) -> None:
    for field in ("input", "model"):
        body = {"input": "a", "model": "fake"}
        del body[field]
        assert embedding.post(body).json()["error"]["param"] == field


def test_token_ids_are_refused_with_the_way_out(embedding: Embedding) -> None:
    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length"):
        embedding.openai.embeddings.create(model="fake", input=[101, 102])
    assert embedding.embedder.calls == []


def test_the_message_about_a_long_text_has_both_lengths(embedding: Embedding) -> None:
    with pytest.raises(openai.BadRequestError, match=r"256 tokens.*has 302"):
        embedding.openai.embeddings.create(model="fake", input="word " * 300)


def test_an_embedder_that_does_not_answer_is_a_503(embedding: Embedding) -> None:
    embedding.embedder.available = False
    with pytest.raises(openai.InternalServerError) as error:
        embedding.openai.embeddings.create(model="fake", input="a")

    assert (error.value.status_code, error.value.code) == (503, "embeddings_unavailable")
    [entry] = embedding.store.documents
    assert (entry["outcome"], entry["error"], entry["input_tokens"]) == ("failed", "embeddings_unavailable", 0)


def test_a_client_that_leaves_ends_the_work(embedding: Embedding) -> None:
    embedding.embedder.stuck = True
    with pytest.raises(httpx.ReadTimeout):
        embedding.http.post(PATH, json={"input": "a", "model": "fake"}, timeout=0.3)

    for _ in range(500):
        if embedding.store.documents:
            break
        time.sleep(0.01)
    [entry] = embedding.store.documents
    assert (entry["outcome"], entry["input_tokens"]) == ("cancelled", 0)


def test_an_idempotency_key_has_no_effect_and_the_response_says_so(embedding: Embedding) -> None:
    answers = [
        embedding.http.post(PATH, json={"model": ALIAS, "input": "Hi"}, headers=headers)
        for headers in ({}, {"idempotency-key": "k"})
    ]
    assert [answer.headers.get("x-manta-ignored") for answer in answers] == [None, "idempotency-key"]
    assert [answer.status_code for answer in answers] == [200, 200]


def test_the_ledger_has_tokens_price_and_user(embedding: Embedding) -> None:
    embedding.openai.embeddings.create(model=ALIAS, input=["one two", "three"], user="ann")

    [entry] = embedding.store.documents
    assert (entry["endpoint"], entry["tier"], entry["model"], entry["version"]) == (PATH, "embeddings", ALIAS, "fake@1")
    assert (entry["input_tokens"], entry["output_tokens"], entry["outcome"]) == (7, 0, "finished")
    assert entry["price"] == [2.0, 2.0, 0.0]
    assert entry["cost"] == 14_000  # 7 tokens at 2 a million, in units of 1e-9
    assert (entry["user"], entry["exact"], entry["tenant"]) == ("ann", True, "acme")


def test_limits_count_the_tokens(embedding: Embedding) -> None:
    first = embedding.post({"input": "one two three", "model": "fake"}, LIMITED_KEY)
    refused = embedding.post({"input": "word " * 100, "model": "fake"}, LIMITED_KEY)

    assert first.status_code == 200
    assert first.headers["x-ratelimit-limit-tokens"] == "60"
    assert (refused.status_code, refused.json()["error"]["type"]) == (429, "rate_limit_error")
    assert len(embedding.embedder.calls) == 1


def test_a_key_needs_the_right_to_the_model(embedding: Embedding) -> None:
    answer = embedding.post({"input": "a", "model": "fake"}, BARRED_KEY)

    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "model_not_allowed")
    assert embedding.post({"input": "a", "model": "fake"}, "sk-none").status_code == 401
    assert embedding.http.get(PATH).status_code == 405
    assert embedding.post({"input": "a", "model": "fake"}, OTHER_KEY).status_code == 200


def test_without_an_embedder_there_are_no_embeddings(served: Served) -> None:
    answer = served.http.post(PATH, json={"input": "hello", "model": "fake"})

    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "embeddings_not_configured")
