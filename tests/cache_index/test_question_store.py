"""What every store of questions does, and how a record is written."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import redis

from cluster.local.redis_server import RedisServer
from cluster.state import redis_names
from cluster.state.pair_judgement import PairJudgement, decode_judgement, pair_digest
from cluster.state.question_record import (
    PoisonedQuestionError,
    QuestionRecord,
    decode_question,
    encode_question,
    model_digest,
)
from cluster.state.redis_questions import MAX_JUDGEMENTS, MAX_REFUSED, RedisQuestions
from router.ports.answer_cache import HitJudge
from router.ports.state_store import StateUnavailableError
from tests.cache_index.memory_questions import MemoryQuestions

Questions = MemoryQuestions | RedisQuestions
MODEL = model_digest("m@1")


def record(number: int = 1, tenant: str = "acme", **changes: object) -> QuestionRecord:
    vector = np.random.default_rng(number).standard_normal(384).astype(np.float32)
    vector /= np.linalg.norm(vector)
    made = QuestionRecord(tenant, f"id-{number}", "ab" * 32, f"Question {number}?", 1000, 2000, MODEL, vector)
    return replace(made, **changes)  # type: ignore[arg-type]


def same(one: QuestionRecord, other: QuestionRecord | None) -> bool:
    return other is not None and (
        replace(one, vector=other.vector) == other and bool(np.allclose(one.vector, other.vector, atol=1e-3))
    )


@pytest.mark.parametrize("question", ["", "Wie heißt „Ω“?", "half \ud83d of a pair", "nul\0", "x" * 100_000])
def test_a_record_is_read_as_it_was_written(question: str) -> None:
    written = record(question=question)
    read = decode_question(encode_question(written), "acme", written.id)
    assert same(written, read)


def test_a_record_takes_two_bytes_for_a_component_and_little_else() -> None:
    assert len(encode_question(record(question="?" * 50))) <= 768 + 50 + 64 + 48


@pytest.mark.parametrize(
    "data",
    [
        b"",
        encode_question(record())[:-1],
        encode_question(record())[:20],
        encode_question(record()) + b"\0",
        encode_question(record(tenant="other")),
        encode_question(record(2)),
        bytes(reversed(encode_question(record()))),
    ],
    ids=["nothing", "cut", "header", "longer", "tenant", "id", "altered"],
)
def test_what_is_no_record_of_this_entry_is_poisoned(data: bytes) -> None:
    with pytest.raises(PoisonedQuestionError):
        decode_question(data, "acme", record().id)


async def test_records_are_found_by_tenant_and_id(questions: Questions) -> None:
    await questions.put([record(1), record(2), record(1, tenant="other")])
    await questions.delete([("acme", "id-2"), ("acme", "absent"), ("nowhere", "id-1")])
    first, second, third = await questions.get("acme", ["id-1", "id-2", "id-3"])
    assert same(record(1), first)
    assert second is third is None
    assert await questions.get("acme", []) == []


async def test_all_records_come_in_pages(questions: Questions) -> None:
    await questions.put([record(number, tenant) for number in range(1200) for tenant in ("acme", "other")])
    found = {(each.tenant, each.id) async for page in questions.pages() for each in page.records}
    assert found == {(tenant, f"id-{number}") for number in range(1200) for tenant in ("acme", "other")}


async def test_a_position_belongs_to_a_model(questions: Questions) -> None:
    assert await questions.position(MODEL) is None
    await questions.note_position(MODEL, "17")
    assert await questions.position(MODEL) == "17"
    assert await questions.position(MODEL + 1) is None


async def test_judgements_of_a_tenant_come_newest_first(questions: Questions) -> None:
    judged = [
        PairJudgement("s@1", True, HitJudge.CLIENT, 0.75, "ab", 1.0, "key-1"),
        PairJudgement("s@1", False, HitJudge.SHADOW, 0.5, "cd", 100.0),
    ]
    for each in judged:
        await questions.judge("acme", each)
    assert await questions.judgements("acme", "s@1") == judged[::-1]
    assert await questions.judgements("acme", "s@2") == await questions.judgements("other", "s@1") == []


async def test_a_pair_is_refused_for_its_tenant_until_its_time_ends(questions: Questions) -> None:
    await questions.refuse("acme", "ab", 1000, 3000)
    await questions.refuse("acme", "ab", 1000, 2000)
    await questions.refuse("acme", "cd", 1000, 2000)
    assert await questions.refused("acme", ["ab", "cd", "ef"], 1999) == {"ab", "cd"}
    assert await questions.refused("acme", ["ab", "cd", "ef"], 2000) == {"ab"}
    assert await questions.refused("other", ["ab"], 1000) == set()
    assert await questions.refused("acme", [], 1000) == set()


def test_a_pair_has_one_name_in_both_orders_and_another_in_another_partition() -> None:
    assert pair_digest("p", "a", "bc") == pair_digest("p", "bc", "a")
    assert len({pair_digest("p", "a", "bc"), pair_digest("p", "ab", "c"), pair_digest("q", "a", "bc")}) == 3


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b'{"version":"s@1","wrong":true,"judge":"x","score":1}'])
def test_what_is_no_judgement_is_left_out(data: bytes) -> None:
    assert decode_judgement(data) is None


async def test_refused_pairs_of_a_tenant_are_bounded_in_redis(redis_server: RedisServer, state: object) -> None:
    made = RedisQuestions(state, redis_server.url)  # type: ignore[arg-type]
    name = redis_names.cache_refused("acme")
    with redis.Redis.from_url(redis_server.url) as client:
        client.zadd(name, {f"p{number}": 10_000 + number for number in range(MAX_REFUSED)} | {"old": 500})
        await made.refuse("acme", "ab", 1000, 50_000)
        assert client.zcard(name) == MAX_REFUSED
        assert client.zscore(name, "old") is None
        assert client.zscore(name, "p0") is None
        assert client.zscore(name, "ab") == 50_000
        assert 0 < client.pttl(name) <= 49_000
    await made.close()


async def test_poisoned_records_are_named_and_judgements_bounded_in_redis(
    redis_server: RedisServer, state: object
) -> None:
    made = RedisQuestions(state, redis_server.url)  # type: ignore[arg-type]
    await made.put([record(1), record(2)])
    with redis.Redis.from_url(redis_server.url) as client:
        client.hset(redis_names.cache_questions("acme"), "id-1", b"spoilt")
        name = redis_names.cache_judgements("acme")
        client.lpush(name, "{}", "[", *["{}"] * MAX_JUDGEMENTS)
        await made.judge("acme", PairJudgement("s@1", True, HitJudge.CLIENT, 0.9))
        assert client.llen(name) == MAX_JUDGEMENTS
        assert client.ttl(name) > 0
    pages = [page async for page in made.pages()]
    assert [each.id for page in pages for each in page.records] == ["id-2"]
    assert [each for page in pages for each in page.poisoned] == [("acme", "id-1")]
    assert len(await made.judgements("acme", "s@1")) == 1
    await made.close()
    with pytest.raises(StateUnavailableError):
        await made.get("acme", ["id-1"])
