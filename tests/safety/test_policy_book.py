"""Policies at run time: which counts, how soon, and what happens while the store is away."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Literal

import pytest

from safety.api import (
    DEFAULT_POLICY,
    UNREADABLE_POLICY,
    InvalidPolicyError,
    Origin,
    Passage,
    PolicyStoreError,
    Subject,
)
from safety.compiled_policy import Parts
from safety.guard import PolicyGuard
from safety.policy import PolicyConfig, SafetyPolicies
from safety.policy_book import PolicyBook

CONFIG = SafetyPolicies(default=PolicyConfig(refusal="config"), tenants={"acme": PolicyConfig(refusal="acme")})
UNCLASSIFIED = {"content": None, "content_answers": None, "injection": {"user": None, "documents": None}}


class Store:
    """A store that can be away."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}
        self.away = False
        self.reads = 0

    async def policy(self, tenant: str) -> str | None:
        self.reads += 1
        self._check()
        return self.found.get(tenant)

    async def put_policy(self, tenant: str, document: str) -> None:
        self._check()
        self.found[tenant] = document

    async def delete_policy(self, tenant: str) -> bool:
        self._check()
        return self.found.pop(tenant, None) is not None

    async def policy_tenants(self) -> Sequence[str]:
        self._check()
        return sorted(self.found)

    def _check(self) -> None:
        if self.away:
            raise PolicyStoreError("away")


def policy_json(refusal: str, **more: Any) -> bytes:
    return PolicyConfig.model_validate({"refusal": refusal, **more}).model_dump_json().encode()


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def now() -> list[float]:
    return [100.0]


@pytest.fixture
def book(store: Store, now: list[float]) -> PolicyBook:
    return PolicyBook(CONFIG, store, has_classifier=True, cache_s=5, now=lambda: now[0])


async def refusals(book: PolicyBook) -> tuple[str, str]:
    """The refusals of the tenants acme and other, once what is read in the background has arrived."""
    for _ in range(2):
        found = (await book.of("acme")).refusal, (await book.of("other")).refusal
        await asyncio.sleep(0.01)
    return found


async def test_a_stored_policy_comes_before_the_config_and_a_tenants_before_the_default(book: PolicyBook) -> None:
    assert await refusals(book) == ("acme", "config")
    await book.set_policy("*", policy_json("stored default"))
    assert await refusals(book) == ("acme", "stored default")
    await book.set_policy("acme", policy_json("stored"))
    assert await refusals(book) == ("stored", "stored default")
    removed = await book.remove_policy("acme")
    assert await refusals(book) == ("acme", "stored default")
    assert not removed.stored


async def test_another_routers_change_counts_after_the_cache_has_expired(
    book: PolicyBook, store: Store, now: list[float]
) -> None:
    assert await refusals(book) == ("acme", "config")
    store.found["acme"] = policy_json("changed").decode()
    assert await refusals(book) == ("acme", "config")
    reads = store.reads
    now[0] += 6

    assert await refusals(book) == ("changed", "config")
    assert store.reads == reads + 3  # acme, other and the default, once each


async def test_while_the_store_is_away_what_was_read_counts(book: PolicyBook, store: Store, now: list[float]) -> None:
    store.found["acme"] = policy_json("stored").decode()
    assert await refusals(book) == ("stored", "config")
    store.away = True
    now[0] += 60

    assert await refusals(book) == ("stored", "config")
    with pytest.raises(PolicyStoreError):
        await book.set_policy("acme", policy_json("new"))
    assert await refusals(book) == ("stored", "config")


async def test_a_policy_of_another_release_changes_nothing(book: PolicyBook, store: Store, now: list[float]) -> None:
    store.found["acme"] = policy_json("stored").decode()
    assert (await refusals(book))[0] == "stored"
    store.found["acme"] = '{"from": "the future"}'
    now[0] += 6

    assert (await refusals(book))[0] == "stored"


@pytest.mark.parametrize(
    ("document", "field"),
    [(b"{", None), (b'{"refusal": ""}', "refusal"), (b'{"content": {"block": 2}}', "content.block")],
)
async def test_a_wrong_document_is_refused_and_not_stored(
    book: PolicyBook, store: Store, document: bytes, field: str | None
) -> None:
    with pytest.raises(InvalidPolicyError) as error:
        await book.set_policy("acme", document)

    assert error.value.field == field
    assert not store.found


async def test_without_a_classifier_no_policy_may_need_one(store: Store) -> None:
    book = PolicyBook(CONFIG, store, has_classifier=False)
    with pytest.raises(InvalidPolicyError, match="classifier"):
        await book.set_policy("acme", b"{}")

    assert (await book.set_policy("acme", policy_json("plain", **UNCLASSIFIED))).stored


async def test_all_policies_are_listed_with_their_source(book: PolicyBook) -> None:
    await book.set_policy("zoo", policy_json("zoo"))
    listed = [(each.tenant, each.stored) for each in await book.policies()]

    assert listed == [("*", False), ("acme", False), ("zoo", True)]


class TestPoliciesThatThisReleaseCannotRead:
    """A newer release may have written them, or a person."""

    NEWER = '{"a setting of the next release": true}'

    @pytest.mark.parametrize(
        ("stored", "tenant", "replaced"),
        [
            ("acme", "acme", True),
            ("acme", "other", False),
            (DEFAULT_POLICY, "other", True),
            (DEFAULT_POLICY, "acme", False),  # the config file has one of its own
        ],
    )
    async def test_the_policy_that_counts_instead_is_told_apart(
        self, book: PolicyBook, store: Store, stored: str, tenant: str, replaced: bool
    ) -> None:
        store.found[stored] = self.NEWER

        policy = await book.of(tenant)

        assert policy.refusal == ("acme" if tenant == "acme" else "config")
        assert book.replaced(tenant) is replaced
        assert (await book.policy(stored)).unreadable
        assert book.unreadable() == [stored]

    async def test_what_was_read_before_counts_on_and_the_status_says_so(
        self, book: PolicyBook, store: Store, now: list[float]
    ) -> None:
        await book.set_policy("acme", policy_json("before", **UNCLASSIFIED))
        store.found["acme"] = self.NEWER
        now[0] += 10
        await book.of("acme")  # reads it again in the background
        await asyncio.sleep(0.01)

        assert (await book.of("acme")).refusal == "before"
        assert not book.replaced("acme")
        assert book.unreadable() == ["acme"]

    @pytest.mark.parametrize("mended", ["replaced", "removed"])
    async def test_a_policy_that_is_mended_is_no_longer_named(
        self, book: PolicyBook, store: Store, mended: str
    ) -> None:
        store.found["acme"] = self.NEWER
        await book.of("acme")
        if mended == "replaced":
            await book.set_policy("acme", policy_json("new", **UNCLASSIFIED))
        else:
            await book.remove_policy("acme")

        assert book.unreadable() == []
        assert not book.replaced("acme")

    async def test_each_reading_in_vain_is_counted(self, store: Store) -> None:
        counted: list[None] = []
        book = PolicyBook(CONFIG, store, has_classifier=False, on_unreadable=lambda: counted.append(None))
        store.found["acme"] = self.NEWER
        await book.of("acme")
        assert len(counted) == 1

    @pytest.mark.parametrize(("when_unavailable", "refused"), [("refuse", True), ("pass", False)])
    async def test_a_tenant_that_fails_closed_is_refused_and_the_audit_log_says_why(
        self, store: Store, when_unavailable: Literal["refuse", "pass"], refused: bool
    ) -> None:
        policy = PolicyConfig.model_validate({**UNCLASSIFIED, "when_unavailable": when_unavailable})
        book = PolicyBook(SafetyPolicies(default=policy), store, has_classifier=False)
        guard = PolicyGuard(book, Parts())
        store.found["acme"] = self.NEWER

        ruling = await guard.inspect(Subject("acme", "r1", "k1", "", "user"), [Passage("Hello", Origin.USER)])

        assert ruling.refused is refused
        assert ruling.unavailable is refused
        assert [(verdict.check, verdict.error) for verdict in ruling.verdicts] == [("policy", UNREADABLE_POLICY)]
        assert ruling.label == "unscanned"
        assert not (
            await guard.inspect(Subject("other", "r1", "k1", "", "user"), [Passage("Hello", Origin.USER)])
        ).verdicts
