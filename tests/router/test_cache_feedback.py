"""A client says that an answer was wrong."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.router.cached import Cached

FEEDBACK = "/v1/cache/feedback"


async def feedback(cached: Cached, entry: str, key: str = "sk-user", **more: Any) -> httpx.Response:
    return await cached.post(FEEDBACK, {"entry": entry, **more}, key)


async def test_a_wrong_answer_is_deleted_by_its_tenant_and_the_index_learns_of_it(cached: Cached) -> None:
    await cached.ask()
    entry = (await cached.ask()).headers["x-manta-cache-entry"]
    assert (await feedback(cached, entry, "sk-other")).status_code == 404
    assert (await feedback(cached, entry, "sk-viewer")).status_code == 403
    assert (await feedback(cached, entry, wrong=False)).json()["deleted"] is False
    assert (await cached.status()).startswith("exact")
    said = await feedback(cached, entry)
    assert said.json() == {"object": "cache_feedback", "entry": entry, "wrong": True, "deleted": True}
    assert (await feedback(cached, entry)).status_code == 404
    assert await cached.status() == "miss; new"
    assert [(each.wrong, each.judge.value) for each in cached.index.told] == [(False, "client"), (True, "client")]


async def test_an_answer_that_was_wrong_for_another_question_stays_for_its_own(cached: Cached) -> None:
    await cached.ask()
    cached.index.same("What are quarks?", "What is a quark?", 0.97)
    entry = (await cached.ask("What are quarks?")).headers["x-manta-cache-entry"]
    said = await feedback(cached, entry, question="What are quarks?")
    assert said.json()["deleted"] is False
    (told,) = cached.index.told
    assert (told.wrong, told.question, told.score) == (True, "What are quarks?", None)
    assert told.who
    assert await cached.status() == "exact; age=0"
    assert (await feedback(cached, entry, question="What is a quark?")).json()["deleted"] is True


async def test_a_question_is_told_to_the_index_as_it_was_asked_for() -> None:
    guarded = Cached(guarded=True)
    guarded.policies.set(pii={"requests": "redact"})
    await guarded.ask()
    redacted = "What is a quark, <EMAIL_ADDRESS>?"
    guarded.index.same(redacted, "What is a quark?", 0.97)
    entry = (await guarded.ask("What is a quark, ann@example.com?")).headers["x-manta-cache-entry"]

    await feedback(guarded, entry, question="What is a quark, ann@example.com?")

    assert [told.question for told in guarded.index.told] == [redacted]
    guarded.policies.set(pii={"requests": "block"})
    refused = await feedback(guarded, entry, question="What is a quark, ann@example.com?")
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "question")


@pytest.mark.parametrize("entry", ["", "x", "../" * 20, f"{'0' * 64}-{'0' * 11}", f"{'0' * 64}-{'0' * 12}\n"])
async def test_what_is_no_id_of_an_entry_is_refused(cached: Cached, entry: str) -> None:
    answer = await feedback(cached, entry)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "entry"


async def test_a_client_is_told_if_the_index_does_not_take_its_pair(cached: Cached) -> None:
    await cached.ask()
    cached.index.same("What are quarks?", "What is a quark?", 0.97)
    entry = (await cached.ask("What are quarks?")).headers["x-manta-cache-entry"]
    cached.index.unavailable = True

    said = await feedback(cached, entry, question="What are quarks?")

    assert said.status_code == 503
    assert said.json()["error"]["code"] == "state_unavailable"
    assert said.headers["retry-after"] == "1"
