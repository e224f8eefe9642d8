"""What every implementation of ``CollectionStore`` does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from cluster.config import StateConfig
from cluster.state.redis_collection_store import RedisCollections
from router.memory_collection_store import MemoryCollectionStore
from router.ports.collection_store import (
    CollectionFullError,
    CollectionLimits,
    CollectionRecord,
    CollectionStore,
    NewDocument,
)
from router.ports.state_store import StateUnavailableError

LIMITS = CollectionLimits(collections=2, documents=3, chunks=10, bytes=1000)
BOOKS = CollectionRecord("books", "u1", '{"description": "ü"}')


def document(name: str, body: bytes = b"\x00body\xff", chunks: int = 2, size: int = 100) -> NewDocument:
    return NewDocument(name, body, chunks, size)


@pytest.fixture(params=["memory", "redis"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[CollectionStore]:
    """A store that holds nothing yet."""
    made: CollectionStore = MemoryCollectionStore()
    if request.param == "redis":
        server = request.getfixturevalue("redis_server")
        made = RedisCollections(StateConfig(timeout_s=5, background_timeout_s=5), server.url)
    await made.start()
    yield made
    await made.close()


@pytest.fixture
async def books(store: CollectionStore) -> CollectionStore:
    """A store with an empty collection of the tenant acme."""
    assert await store.create_collection("acme", BOOKS, LIMITS)
    return store


async def state(store: CollectionStore, name: str = "books") -> CollectionRecord:
    found = await store.collection("acme", name)
    assert found is not None
    return found


async def test_a_collection_is_found_by_its_tenant_alone(books: CollectionStore) -> None:
    assert await books.collection("acme", "books") == BOOKS
    assert await books.collections("acme") == [BOOKS]
    assert await books.collection("other", "books") is None
    assert await books.collections("other") == []


async def test_a_name_is_given_once_and_a_repeated_call_changes_nothing(books: CollectionStore) -> None:
    assert await books.create_collection("acme", BOOKS, LIMITS)
    assert not await books.create_collection("acme", replace(BOOKS, uid="u2"), LIMITS)
    assert await books.create_collection("other", replace(BOOKS, uid="u3"), LIMITS)
    assert await books.collections("acme") == [BOOKS]


async def test_a_tenant_has_a_limited_number_of_collections(books: CollectionStore) -> None:
    await books.create_collection("acme", CollectionRecord("films", "u2", "{}"), LIMITS)

    with pytest.raises(CollectionFullError) as caught:
        await books.create_collection("acme", CollectionRecord("songs", "u3", "{}"), LIMITS)
    assert (caught.value.limit, caught.value.value) == ("collections", 2)
    assert [each.name for each in await books.collections("acme")] == ["books", "films"]


async def test_documents_are_kept_and_counted(books: CollectionStore) -> None:
    kept = await books.put_documents("acme", "u1", [document("b"), document("a", b"{}", 3, 50)], LIMITS)

    assert kept == await state(books) == replace(BOOKS, version=2, documents=2, chunks=5, bytes=150)
    assert await books.document_versions("acme", "u1") == {"b": 1, "a": 2}
    found = await books.documents("acme", "u1", ["a", "none", "b"])
    assert [tuple(each) for each in found] == [("a", 2, b"{}", None), ("b", 1, b"\x00body\xff", None)]
    assert await books.documents("other", "u1", ["a"]) == []


async def test_a_document_takes_the_place_of_one_with_its_id(books: CollectionStore) -> None:
    await books.put_documents("acme", "u1", [document("a"), document("b")], LIMITS)
    assert await books.put_vectors("acme", "u1", "a", 1, b"v")

    await books.put_documents("acme", "u1", [document("a", b"new", 1, 10)], LIMITS)

    assert await state(books) == replace(BOOKS, version=4, documents=2, chunks=3, bytes=110)
    assert (await books.documents("acme", "u1", ["a"]))[0][1:] == (4, b"new", None)
    assert list(await books.document_versions("acme", "u1")) == ["b", "a"]


@pytest.mark.parametrize(
    ("documents", "limit"),
    [
        ([document(f"d{n}") for n in range(4)], "documents"),
        ([document("a", chunks=11)], "chunks"),
        ([document("a", size=600), document("b", size=401)], "bytes"),
    ],
)
async def test_what_does_not_fit_is_not_kept_at_all(
    books: CollectionStore, documents: list[NewDocument], limit: str
) -> None:
    await books.put_documents("acme", "u1", [document("a", size=1)], LIMITS)
    before = await state(books)

    with pytest.raises(CollectionFullError) as caught:
        await books.put_documents("acme", "u1", documents, LIMITS)
    assert caught.value.limit == limit
    assert await state(books) == before


async def test_bytes_count_for_the_tenant_and_come_back(books: CollectionStore) -> None:
    await books.create_collection("acme", CollectionRecord("films", "u2", "{}"), LIMITS)
    await books.put_documents("acme", "u1", [document("a", size=900)], LIMITS)
    with pytest.raises(CollectionFullError):
        await books.put_documents("acme", "u2", [document("a", size=101)], LIMITS)

    await books.put_documents("acme", "u1", [document("a", size=800)], LIMITS)
    await books.put_documents("acme", "u2", [document("a", size=101)], LIMITS)
    await books.delete_document("acme", "u2", "a")
    await books.delete_collection("acme", "books")
    assert await books.put_documents("acme", "u2", [document("a", size=1000)], LIMITS) is not None


async def test_a_deleted_document_is_gone_with_its_vectors(books: CollectionStore) -> None:
    await books.put_documents("acme", "u1", [document("a"), document("b")], LIMITS)
    await books.put_vectors("acme", "u1", "a", 1, b"v")

    assert not await books.delete_document("other", "u1", "a")
    assert await books.delete_document("acme", "u1", "a")
    assert not await books.delete_document("acme", "u1", "a")

    assert await books.documents("acme", "u1", ["a", "b"]) == await books.documents("acme", "u1", ["b"])
    assert await state(books) == replace(BOOKS, version=4, documents=1, chunks=2, bytes=100)


async def test_a_deleted_collection_is_gone_and_its_name_begins_anew(books: CollectionStore) -> None:
    await books.put_documents("acme", "u1", [document("a")], LIMITS)

    assert not await books.delete_collection("other", "books")
    assert await books.delete_collection("acme", "books")
    assert not await books.delete_collection("acme", "books")

    assert await books.collection("acme", "books") is None
    assert await books.document_versions("acme", "u1") == {}
    assert await books.documents("acme", "u1", ["a"]) == []
    assert await books.put_documents("acme", "u1", [document("a")], LIMITS) is None
    assert not await books.put_vectors("acme", "u1", "a", 1, b"v")
    assert not await books.delete_document("acme", "u1", "a")
    again = replace(BOOKS, uid="u9")
    assert await books.create_collection("acme", again, LIMITS)
    assert await state(books) == again


async def test_vectors_of_an_older_version_are_dropped(books: CollectionStore) -> None:
    await books.put_documents("acme", "u1", [document("a")], LIMITS)
    await books.put_documents("acme", "u1", [document("a", b"new")], LIMITS)

    assert not await books.put_vectors("acme", "u1", "a", 1, b"old")
    assert await books.put_vectors("acme", "u1", "a", 2, b"\x00\xff")
    assert not await books.put_vectors("acme", "u1", "a", 2, b"late")

    assert tuple((await books.documents("acme", "u1", ["a"]))[0]) == ("a", 3, b"new", b"\x00\xff")
    assert (await state(books)).embedded == 1


async def test_vectors_can_be_replaced(books: CollectionStore) -> None:
    await books.put_documents("acme", "u1", [document("a")], LIMITS)
    for version in (1, 2):
        assert await books.put_vectors("acme", "u1", "a", version, b"v")

    assert (await state(books)).embedded == 1


async def test_calls_at_once_leave_right_counts(books: CollectionStore) -> None:
    limits = LIMITS._replace(documents=100, chunks=1000, bytes=100_000)
    puts = [books.put_documents("acme", "u1", [document(f"d{n % 10}")], limits) for n in range(50)]
    deletions = [books.delete_document("acme", "u1", f"d{n}") for n in range(5)]

    await asyncio.gather(*puts, *deletions)

    found, versions = await state(books), await books.document_versions("acme", "u1")
    assert (found.documents, found.chunks, found.bytes) == (len(versions), 2 * len(versions), 100 * len(versions))
    assert found.version == max(versions.values()) or len(versions) < 10


async def test_many_documents_are_read_in_one_call(books: CollectionStore) -> None:
    limits = LIMITS._replace(documents=200, chunks=1000, bytes=100_000)
    names = [f"d{n:03}" for n in range(100)]
    await books.put_documents("acme", "u1", [document(name, name.encode()) for name in names], limits)

    found = await books.documents("acme", "u1", names)

    assert [(each.id, each.body) for each in found] == [(name, name.encode()) for name in names]


async def test_a_closed_store_says_so(store: CollectionStore) -> None:
    await store.close()

    with pytest.raises(StateUnavailableError):
        await store.collection("acme", "books")
