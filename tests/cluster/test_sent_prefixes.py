from __future__ import annotations

import pytest

from cluster.lanes.sent_prefixes import PIECE_CHARS, PIECE_TOKENS, PrefixMemory, fingerprint
from engine.api import Conversation, GenerationRequest, Message, Prompt


def request(prompt: Prompt, salt: str = "tenant") -> GenerationRequest:
    return GenerationRequest("r", prompt, cache_salt=salt)


def test_prompts_with_a_common_start_share_the_start_of_their_chains() -> None:
    system = "x" * PIECE_CHARS * 3
    first, second = fingerprint(request(system + "one")), fingerprint(request(system + "two"))
    assert first[:3] == second[:3]
    assert first[3] != second[3]


@pytest.mark.parametrize(
    "prompt",
    ["a" * 1000, tuple(range(PIECE_TOKENS * 3)), Conversation((Message("user", "a" * 1000), Message("user", "b")))],
    ids=["text", "tokens", "conversation"],
)
def test_tenants_never_share_a_chain(prompt: Prompt) -> None:
    assert not set(fingerprint(request(prompt, "a"))) & set(fingerprint(request(prompt, "b")))


def test_who_said_it_matters() -> None:
    said = fingerprint(request(Conversation((Message("user", "hello"),))))
    assert said != fingerprint(request(Conversation((Message("assistant", "hello"),))))


def test_matched_counts_from_the_start_of_the_prompt() -> None:
    memory = PrefixMemory()
    memory.remember([1, 2, 3, 4])
    assert memory.matched([1, 2, 9, 4]) == 0.5
    assert memory.matched([9, 2, 3, 4]) == 0.0
    assert memory.matched([]) == 0.0


def test_the_memory_is_bounded_and_forgets_tails_first() -> None:
    memory = PrefixMemory()
    memory.remember([1, 2, 3], 96, 128)
    memory.remember([7, 8], 64, 128)
    assert len(memory) == 4
    assert memory.matched([7, 8]) == 1.0
    assert memory.matched([1, 2, 3]) == pytest.approx(2 / 3)


def test_no_more_tokens_are_remembered_than_the_kv_cache_of_the_replica_holds() -> None:
    memory = PrefixMemory()
    for number in range(100):
        memory.remember([100 * number + piece for piece in range(10)], 320, 1_600)
    assert len(memory) == 50
    assert [memory.matched([100 * number]) for number in (94, 95, 99)] == [0.0, 1.0, 1.0]
    memory.remember([1, 2], 1_000, 1_600)  # of text with more tokens in each piece
    assert len(memory) == 2 + 18
    memory.remember([1, 2], 1_000, 1_600)  # again
    assert len(memory) == 20
    memory.remember([3, 4], 5_000, 1_600)  # longer than the cache
    assert len(memory) == 0


def test_without_a_known_capacity_the_memory_is_bounded_by_the_number_of_pieces() -> None:
    memory = PrefixMemory()
    memory.remember(range(100_000), 3_000_000)
    assert len(memory) == 65_536


def test_a_very_long_prompt_costs_a_bounded_chain() -> None:
    assert len(fingerprint(request("x" * 10_000_000))) <= 1024
