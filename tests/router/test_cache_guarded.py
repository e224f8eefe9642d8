"""The answer cache beside the guard: only what passed the safety policy may come again."""

from __future__ import annotations

import pytest

from tests.router.cached import Cached, text_of
from tests.state.cached import all_of


async def test_no_answer_of_a_refused_or_unscanned_request_is_stored() -> None:
    cached = Cached(guarded=True)
    cached.policies.set(when_unavailable="pass", content={"block": 0.7})
    assert await cached.status() == "miss; new"
    assert await cached.status() == "exact; age=0"
    cached.classifier.mode = "dead"
    assert await cached.status("Another?") == "bypass; unscanned"
    cached.classifier.mode = "well"
    cached.policies.set(when_unavailable="pass", content={"block": 0.8})
    assert await cached.status() == "miss; new"  # another policy: the stored answer might not pass it


async def test_an_answer_that_another_classifier_or_list_has_passed_is_not_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cached = Cached(guarded=True)
    cached.policies.set(content={"block": 0.7}, pii={"answers": "redact"})
    assert await cached.status() == "miss; new"
    assert await cached.status() == "exact; age=0"
    cached.classifier.version = "scripted-2"
    assert await cached.status() == "miss; new"
    assert await cached.status() == "exact; age=0"
    monkeypatch.setattr("safety.answer_checks.PII_VERSION", "another")
    assert await cached.status() == "miss; new"


async def test_a_refusal_that_is_sent_as_an_answer_is_not_stored() -> None:
    cached = Cached(guarded=True)
    cached.policies.set(phrases={"block": ["quark"]}, on_block="answer")
    answer = await cached.ask()
    assert answer.headers["x-manta-cache"] == "bypass; refused"
    assert await all_of(cached.entries.entries()) == []


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_the_guard_halts_is_not_stored(stream: bool) -> None:
    cached = Cached(guarded=True)
    cached.policies.set(phrases={"block": ["wörld"]})
    for _ in range(2):
        answer = await cached.ask(stream=stream)
        assert not answer.headers["x-manta-cache"].startswith("exact")
        cached.clock.advance(2)
    assert len(cached.backend.requests) == 2
    assert await all_of(cached.entries.entries()) == []


async def test_an_answer_that_the_guard_redacts_is_not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.router.backend.WORDS", ("Write to ann@example.com", " soon."))
    cached = Cached(guarded=True)
    cached.policies.set(pii={"answers": "redact"})
    assert "ann@example.com" not in text_of(await cached.ask())
    assert await all_of(cached.entries.entries()) == []


async def test_requests_with_pseudonyms_pass_the_cache_and_redacted_ones_do_not() -> None:
    cached = Cached(guarded=True)
    cached.policies.set(pii={"requests": "pseudonymise"})
    assert await cached.status("Write to ann@example.com.") == "bypass; pseudonyms"
    cached.policies.set(pii={"requests": "redact"})
    assert await cached.status("Write to ann@example.com.") == "miss; new"
    # The model has seen the same for both, and so has the cache: no address is stored.
    assert await cached.status("Write to bob@example.com.") == "exact; age=0"
    (entry,) = await all_of(cached.entries.entries())
    assert "@" not in entry.question


async def test_a_request_in_doubt_that_goes_on_passes_the_cache() -> None:
    cached = Cached(guarded=True)
    cached.policies.set(content={"block": 0.99, "review": 0.0}, review={"action": "pass"})
    assert await cached.status() == "bypass; review"


async def test_a_stored_answer_is_found_by_the_turns_that_the_model_has_seen() -> None:
    cached = Cached(guarded=True)
    cached.policies.set(earlier_turns="drop")
    first, last = {"role": "user", "content": "Hello"}, {"role": "user", "content": "What is a quark?"}
    harm = [{"role": "user", "content": "HARM"}, {"role": "assistant", "content": "No."}]
    other = [{"role": "user", "content": "HARM too"}]
    assert await cached.status(messages=[first, *harm, last]) == "miss; new"
    assert await cached.status(messages=[first, *harm, last]) == "exact; age=0"
    assert await cached.status(messages=[first, last, *harm, last]) == "miss; new"
    # The model has seen the same without these turns, and so has the cache.
    assert await cached.status(messages=[first, *other, last]) == "exact; age=0"
    assert await cached.status(messages=[first, last]) == "exact; age=0"
    assert await cached.status(messages=[last]) == "miss; new"
    assert "HARM" not in str(await all_of(cached.entries.entries()))
    cached.policies.set()
    refused = await cached.ask(messages=[first, *harm, last])
    assert (refused.status_code, "x-manta-cache" in refused.headers) == (400, False)
