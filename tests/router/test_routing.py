from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.api import Conversation, Message
from router.access.config_api_keys import ConfigKeys, bearer
from router.config.auto import AutoConfig
from router.config.keys import KeyConfig
from router.errors import AuthenticationError, NotFoundError
from router.tiers.choose_tier import TierChoice, choose_tier
from router.tiers.complexity import complexity
from tests.router.served import Served

TIERS = ("fast", "balanced", "frontier")
CHOICE = TierChoice(TIERS, AutoConfig())
EASY = "What is the capital of France?"
HARD = (
    "Prove step by step that the algorithm below is optimal, then implement it and compare its complexity with two "
    "alternatives:\n```python\ndef solve(x):\n    return x * 2 + 1 == 7\n```\n"
    "First derive it, then evaluate, finally plan."
)


def ask(text: str) -> Conversation:
    return Conversation((Message("user", text),))


@given(st.text() | st.lists(st.integers(0, 9), min_size=1).map(tuple), st.none() | st.integers(1, 10**9))
def test_the_score_is_a_fraction_with_a_reason_in_plain_ascii(
    prompt: str | tuple[int, ...], tokens: int | None
) -> None:
    judged = complexity(prompt, tokens)
    assert 0 <= judged.score <= 1
    assert judged.reason().isascii()
    assert judged.reason().isprintable()


@given(st.text(max_size=200), st.text(max_size=200))
def test_more_text_never_looks_simpler(start: str, more: str) -> None:
    separated = start + "\n\n" + more
    assert complexity(separated, None).score >= complexity(start + "\n\n", None).score - 1e-9


def test_a_huge_prompt_is_judged_in_bounded_time() -> None:
    assert complexity("first then " * 1_000_000, None).score > 0


@pytest.mark.parametrize(("text", "tier"), [(EASY, "fast"), (HARD, "frontier")])
def test_auto_follows_the_score(text: str, tier: str) -> None:
    route = choose_tier("auto", [ask(text)], None, CHOICE)
    assert route.tier == tier
    assert route.reason.startswith("auto; score=")


def test_the_thresholds_are_the_operators() -> None:
    always_frontier = TierChoice(TIERS, AutoConfig(thresholds={"balanced": 0, "frontier": 0}))
    assert choose_tier("auto", [ask(EASY)], None, always_frontier).tier == "frontier"


def test_several_prompts_go_to_the_tier_of_the_hardest() -> None:
    assert choose_tier("auto", [ask(EASY), ask(HARD)], None, CHOICE).tier == "frontier"


def test_auto_makes_do_with_the_tiers_there_are() -> None:
    assert choose_tier("auto", [ask(HARD)], None, TierChoice(("fast",), AutoConfig())).tier == "fast"


@pytest.mark.parametrize("tier", TIERS)
def test_an_explicit_tier_wins(tier: str) -> None:
    assert choose_tier(tier, [ask(HARD)], None, CHOICE).tier == tier


def test_an_unknown_model_is_not_guessed() -> None:
    with pytest.raises(NotFoundError):
        choose_tier("gpt-4", [ask(EASY)], None, CHOICE)


def test_system_prompts_do_not_make_a_request_complex() -> None:
    alone = complexity(ask(EASY), None).score
    framed = complexity(Conversation((Message("system", HARD), Message("user", EASY))), None).score
    assert framed == alone


@pytest.mark.parametrize("model", ["auto", "fast"])
def test_the_answer_says_which_tier_and_why(served: Served, model: str) -> None:
    body = {"model": model, "messages": [{"role": "user", "content": EASY}]}
    headers = served.http.post("/v1/chat/completions", json=body).headers
    assert headers["x-manta-tier"] == "fast"
    assert headers["x-manta-route-reason"].startswith("auto; score=" if model == "auto" else "explicit")


def test_a_digest_opens_with_its_key_and_not_with_itself() -> None:
    digest = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"  # of "hello"
    ring = ConfigKeys([KeyConfig(key=digest, tenant="acme", team="core")])
    found = ring.find("hello")
    assert found is not None
    assert found.tenant == "acme"
    assert ring.find(digest) is None


@given(st.none() | st.text(max_size=30))
def test_no_header_but_the_right_one_opens(header: str | None) -> None:
    ring = ConfigKeys([KeyConfig(key="a-key-that-hypothesis-does-not-guess", tenant="acme", team="core")])
    try:
        key = bearer(header)
    except AuthenticationError:
        return
    assert ring.find(key) is None


def test_one_key_for_two_tenants_is_refused_at_start() -> None:
    with pytest.raises(ValueError, match="same"):
        ConfigKeys([KeyConfig(key="k", tenant="a", team="x"), KeyConfig(key="k", tenant="b", team="y")])
