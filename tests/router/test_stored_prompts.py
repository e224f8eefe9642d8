"""The prompts of a router beside other routers and a store that fails, and which version a rollback goes to."""

from __future__ import annotations

import asyncio
import json

import pytest

from router.errors import NotFoundError, UnavailableError
from router.memory_prompt_store import MemoryPromptStore
from router.ports.prompt_store import Activation, ActivationKind, StoredVersion
from router.ports.state_store import StateUnavailableError
from router.prompts import stored_prompts
from router.prompts.rollback_target import previous_version
from router.prompts.stored_prompts import StoredPrompts
from tests.state.clock import VirtualClock


class Store(MemoryPromptStore):
    """Counts reads, and fails while ``down``."""

    def __init__(self) -> None:
        super().__init__()
        self.down = False
        self.reads = 0

    async def active(self, tenant: str, prompt_id: str) -> StoredVersion | None:
        self._note()
        return await super().active(tenant, prompt_id)

    async def version(self, tenant: str, prompt_id: str, version: int) -> StoredVersion | None:
        self._note()
        return await super().version(tenant, prompt_id, version)

    def _note(self) -> None:
        self.reads += 1
        if self.down:
            raise StateUnavailableError("down")


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


def book(store: Store, clock: VirtualClock) -> StoredPrompts:
    return StoredPrompts(store, clock, cache_s=5, now=clock.now)


def document(text: str) -> bytes:
    return json.dumps({"messages": [{"role": "system", "content": text}]}).encode()


async def said(made: StoredPrompts, version: int | None = None) -> str:
    return (await made.template("acme", "greet", version)).messages({})[0].content


async def test_another_router_follows_after_the_cache_time(store: Store, clock: VirtualClock) -> None:
    one, other = book(store, clock), book(store, clock)
    for n in (1, 2):
        await one.put("acme", "greet", document(f"{n}"), "ann")
    await one.activate("acme", "greet", 1, "ann")
    assert [await said(each) for each in (one, other)] == ["1", "1"]

    await one.activate("acme", "greet", 2, "ann")

    assert [await said(each) for each in (one, other)] == ["2", "1"]
    clock.advance(5)
    assert await said(other) == "1"  # the reading goes on in the background
    await asyncio.sleep(0.05)
    assert await said(other) == "2"


async def test_what_was_read_counts_while_the_store_is_down(store: Store, clock: VirtualClock) -> None:
    made = book(store, clock)
    await made.put("acme", "greet", document("1"), "ann")
    await made.activate("acme", "greet", 1, "ann")
    assert await said(made) == "1"
    store.down = True
    clock.advance(60)

    assert await said(made) == "1"
    await asyncio.sleep(0)
    assert await said(made, 1) == "1"
    with pytest.raises(UnavailableError) as refusal:
        await said(book(store, clock))
    assert refusal.value.code == "state_unavailable"


async def test_a_version_whose_number_comes_again_after_a_loss_of_data_is_the_new_one(clock: VirtualClock) -> None:
    before, after = Store(), Store()
    made = book(before, clock)
    for text in ("1", "2"):
        await made.put("acme", "greet", document(text), "ann")
    await made.activate("acme", "greet", 1, "ann")
    assert [await said(made), await said(made, 2)] == ["1", "2"]
    for text in ("other 1", "other 2"):
        await book(after, clock).put("acme", "greet", document(text), "ann")
    await book(after, clock).activate("acme", "greet", 1, "ann")
    made._store = after  # as a Redis that has lost its data
    clock.advance(5)

    await said(made)
    await asyncio.sleep(0.05)

    assert [await said(made), await said(made, 2)] == ["other 1", "other 2"]


async def test_names_that_do_not_exist_are_not_remembered(store: Store, clock: VirtualClock) -> None:
    made = book(store, clock)

    for _ in range(3):
        with pytest.raises(NotFoundError):
            await said(made)

    assert not made._active
    assert store.reads == 3


async def test_requests_at_once_read_once(store: Store, clock: VirtualClock) -> None:
    await book(store, clock).put("acme", "greet", document("1"), "ann")
    await store.activate("acme", "greet", Activation(1, ActivationKind.ACTIVATE, 0, "ann"))
    made = book(store, clock)

    assert await asyncio.gather(*(said(made) for _ in range(20))) == ["1"] * 20

    assert store.reads == 2  # the active version, and within the store its document


async def test_compiled_versions_are_bounded(
    store: Store, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_prompts, "MAX_COMPILED", 2)
    made = book(store, clock)
    for n in range(4):
        await made.put("acme", "greet", document(f"{n}"), "ann")

    assert [await said(made, n) for n in (1, 2, 3, 4, 1)] == ["0", "1", "2", "3", "0"]

    assert len(made._compiled) == 2


@pytest.mark.parametrize(
    "stored", ["", "[]", '{"template": {}}', '{"at_ms": 1, "by": "a", "template": {"messages": [{"role": "x"}]}}']
)
async def test_a_document_that_cannot_be_read_harms_its_prompt_alone(
    store: Store, clock: VirtualClock, stored: str
) -> None:
    made = book(store, clock)
    await store.add("acme", "greet", stored)
    await made.put("acme", "other", document("fine"), "ann")

    with pytest.raises(UnavailableError, match="cannot read version 1"):
        await said(made, 1)
    assert (await made.template("acme", "other", 1)).name == "other@1"
    with pytest.raises(NotFoundError):
        await made.template("acme", "other", 2)


def history(*steps: int) -> list[Activation]:
    """Activations of versions; a negative number is a rollback to it."""
    kinds = {True: ActivationKind.ACTIVATE, False: ActivationKind.ROLLBACK}
    return [Activation(abs(step), kinds[step > 0], 0, "ann") for step in steps]


@pytest.mark.parametrize(
    ("steps", "previous"),
    [
        ((), None),
        ((1,), None),
        ((1, 1), None),
        ((1, 2), 1),
        ((1, 2, 3), 2),
        ((1, 2, 3, -2), 1),
        ((1, 2, 3, -2, -1), None),
        ((1, 2, -1, 3), 1),
        ((2, 1, 2), 1),
        ((1, 2, -1, -1), None),  # two administrators at once
        ((-1,), None),  # the beginning of the history is gone
        ((-1, 2), 1),
    ],
)
def test_a_rollback_goes_one_step_further_back_each_time(steps: tuple[int, ...], previous: int | None) -> None:
    assert previous_version(history(*steps)) == previous
