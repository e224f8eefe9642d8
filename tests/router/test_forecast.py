"""The learned choice of ``auto``: what it reads, what it promises, what it costs, and the files it refuses."""

from __future__ import annotations

import json
import math
import pickle
from dataclasses import replace
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.api import Conversation, Message
from router.app_factory import build_app
from router.config.auto import AutoConfig
from router.router_ports import RouterPorts
from router.tiers.character_grams import GRAM_BUCKETS, CharacterGrams
from router.tiers.choose_tier import TierChoice, choose_tier
from router.tiers.quality_forecast import (
    BUCKETS,
    CHARS_PER_WORD,
    READ_CHARS,
    Features,
    Forecaster,
    HiddenUnits,
    cheapest_within,
    features,
    unknown_signs,
)
from tests.router.backend import ScriptedBackend
from tests.router.served import CONFIG, KEY

TIERS = ("fast", "balanced", "frontier")
EASY, HARD = "What is 2 + 3?", "What is 4821 + 3977?"

texts = st.text(
    st.characters() | st.sampled_from("\ud800\udfff 12-\n"), max_size=300
)  # JSON can spell half a surrogate
conversations = st.lists(st.builds(Message, st.sampled_from(["system", "user", "assistant"]), texts), max_size=6).map(
    lambda messages: Conversation(tuple(messages))
)
chances = st.lists(st.floats(0, 1), min_size=1, max_size=5)


def planted() -> Forecaster:
    """Short numbers suit every tier, long ones only the largest."""
    return Forecaster(TIERS, (2.0, 3.0, 4.0), {"digits=4": (-4.0, -3.0, 0.0)}, {})


def ask(text: str) -> Conversation:
    return Conversation((Message("user", text),))


def choose(text: str, tolerance: float = 0.05) -> tuple[str, str]:
    route = choose_tier("auto", [ask(text)], None, TierChoice(TIERS, AutoConfig(tolerance=tolerance), planted()))
    return route.tier, route.reason


class TestTheRule:
    @given(chances)
    def test_no_tolerance_takes_the_best_and_the_cheapest_of_equals(self, expected: list[float]) -> None:
        assert cheapest_within(expected, 0.0) == expected.index(max(expected))

    @given(chances)
    def test_full_tolerance_takes_the_cheapest(self, expected: list[float]) -> None:
        assert cheapest_within(expected, 1.0) == 0

    @given(chances, st.floats(0, 1), st.floats(0, 1))
    def test_more_tolerance_never_takes_a_dearer_tier(self, expected: list[float], one: float, other: float) -> None:
        low, high = sorted((one, other))
        assert cheapest_within(expected, high) <= cheapest_within(expected, low)

    @given(chances, st.floats(0, 1))
    def test_what_is_given_up_is_within_the_tolerance(self, expected: list[float], tolerance: float) -> None:
        assert expected[cheapest_within(expected, tolerance)] >= max(expected) - tolerance


class TestHiddenUnits:
    def test_they_say_what_a_word_means_with_a_sign(self) -> None:
        either = Forecaster(
            ("small",),
            (4.0,),
            {"digits=4": (1.0, 0.0)},
            {},
            hidden=HiddenUnits((-1.5,), ((-20.0,),)),
        )
        word = min(features("add 1234").words & features("add 12").words - features("take 1234").words)
        both = replace(either, words={word: (math.sqrt(len(features("add 1234").words)), 0.0)})

        assert both.expect(features("add 1234"))[0] < 0.01
        assert both.expect(features("add 12"))[0] > 0.9
        assert both.expect(features("take 1234"))[0] > 0.9

    def test_the_tiers_that_are_left_are_forecast_as_before(self) -> None:
        rows = {"digits=4": (1.0, -2.0, 0.5, 1.0, 0.25)}
        whole = Forecaster(
            TIERS,
            (0.5, 0.25, 0.0),
            rows,
            {},
            hidden=HiddenUnits((0.1, 0.2), ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))),
        )
        part = whole.narrowed(["fast", "frontier"])

        assert part.expect(features(HARD)) == pytest.approx(whole.expect(features(HARD))[::2])

    def test_character_n_grams_are_of_the_last_tier_alone(self) -> None:
        seen = features(EASY)
        whole = replace(planted(), grams=CharacterGrams(1.0, b"\x7f" * GRAM_BUCKETS))

        *others, last = whole.expect(seen)

        assert tuple(others) == planted().expect(seen)[:2]
        assert last == pytest.approx(1.0)
        assert last > planted().expect(seen)[-1]
        assert whole.narrowed(["fast", "frontier"]).expect(seen)[-1] == last
        assert whole.narrowed(["fast", "balanced"]).expect(seen) == planted().expect(seen)[:2]

    def test_a_forecaster_can_be_sent_to_another_process(self) -> None:
        sent = pickle.loads(pickle.dumps(planted()))
        assert sent == planted()
        assert sent.expect(features(HARD)) == planted().expect(features(HARD))


class TestTheChoice:
    def test_it_goes_where_enough_is_expected(self) -> None:
        assert choose(EASY, 0.2)[0] == "fast"
        assert choose(HARD, 0.2)[0] == "frontier"

    def test_the_reason_tells_every_chance_and_the_tolerance(self) -> None:
        assert choose(EASY)[1] == "auto; expected fast 0.88, balanced 0.95, frontier 0.98; tolerance 0.05"

    def test_the_tolerance_is_the_operators(self) -> None:
        assert [choose(HARD, tolerance)[0] for tolerance in (0.0, 1.0)] == ["frontier", "fast"]

    def test_several_prompts_go_together_to_the_tier_of_the_hardest(self) -> None:
        auto = AutoConfig(tolerance=0.2)
        route = choose_tier("auto", [ask(EASY), ask(HARD), ask(EASY)], None, TierChoice(TIERS, auto, planted()))
        assert route.tier == "frontier"

    def test_an_explicit_tier_wins(self) -> None:
        assert choose_tier("fast", [ask(HARD)], None, TierChoice(TIERS, AutoConfig(), planted())).reason == "explicit"

    @pytest.mark.parametrize("prompts", [[(1, 2, 3)], [(1,), (2,)]])
    def test_token_ids_are_judged_by_their_number(self, prompts: list[tuple[int, ...]]) -> None:
        assert choose_tier("auto", prompts, None, TierChoice(TIERS, AutoConfig(), planted())).reason.startswith(
            "auto; score="
        )

    @given(texts | conversations, st.floats(0, 1))
    def test_any_text_gets_a_tier_and_a_reason_fit_for_a_header(self, prompt: Any, tolerance: float) -> None:
        route = choose_tier("auto", [prompt], None, TierChoice(TIERS, AutoConfig(tolerance=tolerance), planted()))
        assert route.tier in TIERS
        assert route.reason.isascii()
        assert route.reason.isprintable()

    async def test_the_answer_says_what_was_expected(self) -> None:
        transport = httpx.ASGITransport(build_app(CONFIG, ScriptedBackend(), RouterPorts(forecaster=planted())))
        body = {"model": "auto", "messages": [{"role": "user", "content": HARD}]}
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            answer = await client.post("/v1/chat/completions", json=body, headers={"authorization": f"Bearer {KEY}"})
        assert answer.headers["x-manta-tier"] == "frontier"
        assert answer.headers["x-manta-route-reason"].startswith("auto; expected fast 0.12, ")


class TestFeatures:
    def test_long_numbers_are_seen_by_their_length_alone(self) -> None:
        assert features("Add 1234 and 99.") == features("Add 9876 and 10.")
        assert features("Add 1234 and 99.") != features("Add 12345 and 99.")

    def test_the_order_of_words_is_seen(self) -> None:
        assert features("man bites dog") != features("dog bites man")

    def test_what_was_said_before_is_not_what_is_asked(self) -> None:
        one = Conversation((Message("user", "apple"), Message("assistant", "yes"), Message("user", "pear")))
        other = Conversation((Message("user", "pear"), Message("assistant", "yes"), Message("user", "apple")))
        assert features(one).words != features(other).words

    def test_a_text_is_seen_as_a_conversation_of_one_message_is(self) -> None:
        assert features(HARD) == features(ask(HARD))

    def test_they_are_the_same_in_every_process_and_version(self) -> None:
        assert features("Hi").words == {2732, 44, 894, 2908, 2366}

    def test_half_a_surrogate_pair_is_a_word_like_others(self) -> None:
        assert features("\ud800") != features("\udfff")

    @given(texts | conversations)
    def test_they_stay_within_the_table(self, prompt: Any) -> None:
        seen = features(prompt)
        assert all(0 <= word < BUCKETS for word in seen.words)
        assert all(sign.isascii() for sign in seen.signs)

    @pytest.mark.parametrize("piece", ["a ", "1 ", "- ", "x", "\n", "1. ", "\u0301", "| ", "é", "字"])
    def test_a_huge_prompt_is_not_read_whole(self, piece: str) -> None:
        start, end = piece * READ_CHARS, piece * READ_CHARS
        unread = (middle * 1_000_000 for middle in "ab")
        one, other = (features(start + middle + end) for middle in unread)
        assert one == other
        assert len(one.words) <= 2 * (READ_CHARS // CHARS_PER_WORD) + 3

    def test_of_many_earlier_messages_only_the_last_are_read(self) -> None:
        def talk(first: str) -> Conversation:
            return Conversation((Message("user", first), *[Message("user", "same words again")] * 10_000))

        assert features(talk("one" * 99)) == features(talk("two" * 99))

    def test_where_no_spaces_part_words_each_character_is_one(self) -> None:
        assert len(features("为什么天空是蓝色的").vocabulary) == len(set("为什么天空是蓝色的"))
        assert len(features("why 为什么 why").vocabulary) == 4
        assert len(features("왜 하늘은 파란가요").vocabulary) == 3


class TestUnknownWords:
    def test_a_request_of_known_words_goes_to_the_tier_that_knows_them(self) -> None:
        known = features("Sort these words").vocabulary | features("Sort these words").pairs
        rows = {f"unknown words={count}": (-count, -count, 0.0) for count in range(9)}
        forecaster = Forecaster(TIERS, (1.0, 1.0, 0.0), rows, {}, known=frozenset(known))

        knows, guesses = (forecaster.expect(features(text)) for text in ("Sort these words", "Why do cats purr?"))

        assert cheapest_within(knows, 0.0) == 0
        assert cheapest_within(guesses, 0.0) == 2

    def test_the_signs_tell_how_many_and_what_part(self) -> None:
        seen = features("one two THREE 17")
        known = features("one three").vocabulary

        signs = unknown_signs(seen, known)

        assert signs[:2] == ("unknown words=1", "unknown words of 8=2")
        assert unknown_signs(seen, seen.vocabulary | seen.pairs)[::2] == ("unknown words=0", "unknown pairs=0")
        assert unknown_signs(seen, frozenset()) == ()


class TestFiles:
    def test_what_is_written_is_read(self) -> None:
        written = Forecaster(
            TIERS,
            (0.5, 0.25, 0.0),
            {"digits=4": (1.0, 0.0, 0.125, 3.0)},
            {7: (0.0, 0.0, -2.0, 0.5)},
            {"n": 1},
            frozenset({3}),
            HiddenUnits((0.5,), ((1.0, 2.0, 3.0),)),
            CharacterGrams(0.25, bytes(range(128)) * (GRAM_BUCKETS // 128)),
        )
        assert Forecaster.from_json(written.to_json()) == written

    def test_a_file_without_hidden_units_is_read(self) -> None:
        document = json.loads(planted().to_json())
        old = {name: value for name, value in document.items() if not name.startswith("hidden")}
        assert Forecaster.from_json(json.dumps(old | {"format": 1})) == planted()

    def test_a_file_without_character_n_grams_is_read(self) -> None:
        document = json.loads(planted().to_json())
        old = {name: value for name, value in document.items() if name not in ("grams", "gram scale")}
        assert Forecaster.from_json(json.dumps(old | {"format": 2})) == planted()

    def test_rows_without_effect_are_not_written(self) -> None:
        written = Forecaster(TIERS, (0.0, 0.0, 0.0), {"digits=4": (0.0, 0.0001, 0.0)}, {7: (0.0, 0.0, 0.0)})
        read = Forecaster.from_json(written.to_json())
        assert (read.signs, read.words) == ({}, {})

    @given(st.frozensets(st.integers(0, BUCKETS - 1)), st.lists(st.sampled_from(["digits=4", "new=1"])))
    def test_a_chance_is_a_chance_whatever_the_weights(self, words: frozenset[int], signs: list[str]) -> None:
        extreme = Forecaster(TIERS, (0.0, 1e300, -1e300), {"digits=4": (1e300, 0.0, 0.0)}, {7: (1.0, -1e300, 1.0)})
        assert all(0 <= chance <= 1 for chance in extreme.expect(Features(words, tuple(signs))))

    @pytest.mark.parametrize(
        ("change", "named"),
        [
            ({"format": 4}, "format"),
            ({"grams": "AAAA"}, "grams"),
            ({"grams": "no base64"}, "grams"),
            ({"gram scale": float("inf")}, "gram scale"),
            ({"open share": 1.0}, "open share"),
            ({"hidden bias": [0.0]}, "hidden weights"),
            ({"hidden bias": [0.0], "hidden weights": [[0.0]]}, "hidden weights"),
            ({"hidden bias": [0.0], "hidden weights": [[0.0, 0.0, 0.0]]}, "signs"),
            ({"buckets": 1024}, "buckets"),
            ({"tiers": []}, "tiers"),
            ({"bias": [0.0]}, "bias"),
            ({"bias": [0.0, 0.0, float("nan")]}, "bias"),
            ({"words": {"4096": [0.0, 0.0, 0.0]}}, "words"),
            ({"words": {"one": [0.0, 0.0, 0.0]}}, "words"),
            ({"signs": {"digits=4": [0.0]}}, "signs"),
            ({"surprise": 1}, "surprise"),
        ],
    )
    def test_a_file_that_does_not_fit_is_refused_by_the_name_of_the_field(
        self, change: dict[str, Any], named: str
    ) -> None:
        document = json.loads(planted().to_json()) | change
        with pytest.raises(ValueError, match=named):
            Forecaster.from_json(json.dumps(document))

    @pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"format": 1}'])
    def test_anything_else_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError):
            Forecaster.from_json(text)
