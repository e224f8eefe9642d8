"""Why a prompt was not found in the prefix cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import pytest

from engine import GenerationRequest, SamplingParams
from engine.engine import Engine
from engine.kv import cache
from engine.kv.prefix import Miss, PrefixIndex, chain_digest, root_digest
from tests.engine.conftest import MakeEngine

LONG = tuple(range(2, 42))
ONE = SamplingParams(max_tokens=1, temperature=0)


def misses_of(engine: Engine, *requests: tuple[tuple[int, ...], str]) -> dict[Miss, int]:
    """Runs prompts under salts one after another; the misses by reason, those that occurred."""
    for number, (prompt, salt) in enumerate(requests):
        engine.add(GenerationRequest(f"r{number}", prompt, ONE, cache_salt=salt))
        while engine.has_work:
            engine.step()
    return {miss: count for miss, count in engine.metrics().misses.items() if count}


@pytest.mark.parametrize(
    ("requests", "expected"),
    [
        ([(LONG, "a")], {Miss.NEW: 1}),
        ([(LONG, "a"), (LONG, "a")], {Miss.NEW: 1}),
        ([(LONG, "a"), (LONG, "b")], {Miss.NEW: 1, Miss.OTHER_SALT: 1}),
        ([(LONG, "a"), (LONG[::-1], "a")], {Miss.NEW: 2}),
        ([(LONG, "a"), ((*LONG, *LONG), "a")], {Miss.NEW: 2}),
        ([((5, 6, 7), "a")], {Miss.SHORT: 1}),
    ],
    ids=["first", "again", "another salt", "other tokens", "a longer prompt", "less than a block"],
)
def test_a_miss_has_its_reason(
    make_engine: MakeEngine, requests: list[tuple[tuple[int, ...], str]], expected: dict[Miss, int]
) -> None:
    assert misses_of(make_engine(), *requests) == expected


def test_what_gave_way_is_told_from_what_never_was(make_engine: MakeEngine) -> None:
    engine = make_engine(kv_cache_tokens=64)
    others = [(tuple(range(n, n + 40)), "a") for n in (50, 60)]
    assert misses_of(engine, (LONG, "a"), *others, (LONG, "a")) == {Miss.NEW: 3, Miss.EVICTED: 1}


def test_no_reason_is_given_where_nothing_is_looked_for(make_engine: MakeEngine) -> None:
    assert misses_of(make_engine(prefix_caching=False), (LONG, "a")) == {}


def test_what_is_remembered_of_evicted_blocks_is_bounded() -> None:
    index = PrefixIndex(memory=2)
    digests = [chain_digest(root_digest("a"), [n]) for n in range(3)]
    for block, digest in enumerate(digests):
        index.insert(digest, block)
        index.forget(block)
    assert [index.explain([digest], 0, [9]) for digest in digests] == [Miss.NEW, Miss.EVICTED, Miss.EVICTED]


@pytest.mark.parametrize(("salt", "version"), [("b", "m"), ("a", "n"), ("am", "")])
def test_salt_and_model_version_part_prefixes(salt: str, version: str) -> None:
    assert root_digest("a", "m") != root_digest(salt, version)


def test_the_blocks_of_a_prompt_are_hashed_before_a_step_has_to_wait_for_it(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine()
    job = engine.prepare(GenerationRequest("r", LONG, ONE))

    def hashed(parent: bytes, tokens: Sequence[int]) -> NoReturn:
        raise AssertionError("on the engine's thread")

    monkeypatch.setattr(cache, "chain_digest", hashed)
    engine.enqueue(job)
    [delta] = engine.step()

    assert len(delta.token_ids) == 1
    assert engine.stats().blocks_cached == len(LONG) // 16
