"""Character n-grams: which runs are read, what their weights add up to, what a file may hold."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.tiers.character_grams import GRAM_BUCKETS, LARGEST, LONGEST, CharacterGrams, gram_buckets

texts = st.text(st.characters() | st.sampled_from("\ud800\udfff 12-\n"), max_size=60)


def runs(text: str) -> int:
    """How many runs of 1 to LONGEST characters a text has with a line break before and behind it."""
    return sum(max(len(text) + 2 - length + 1, 0) for length in range(1, LONGEST + 1))


class TestBuckets:
    @given(texts)
    def test_every_run_has_one(self, text: str) -> None:
        assert len(gram_buckets(text)) == runs(text.lower())
        assert int(gram_buckets(text).max()) < GRAM_BUCKETS

    @pytest.mark.parametrize(
        ("one", "other", "alike"),
        [
            ("Sort these", "sort THESE", True),
            ("add 17", "add 93", True),
            ("add 17", "add 7", False),
            ("word", "words", False),
            ("ab", "ba", False),
            ("为什么", "什么为", False),
        ],
    )
    def test_letters_and_digits_are_read_without_their_case_and_value(self, one: str, other: str, alike: bool) -> None:
        assert (sorted(gram_buckets(one)) == sorted(gram_buckets(other))) is alike

    def test_a_misspelt_word_shares_most_of_its_runs(self) -> None:
        right, wrong, another = (
            set(gram_buckets(word).tolist()) for word in ("alphabetically", "alphabeticaly", "zoo")
        )
        assert len(right & wrong) > 0.8 * len(wrong)
        assert len(right & another) < 0.2 * len(another)

    def test_they_are_spread_over_all_buckets(self) -> None:
        letters = [chr(97 + place) for place in range(26)]
        pairs = {int(gram_buckets(one + other)[-3]) for one in letters for other in letters}
        assert len(pairs) > 0.95 * len(letters) ** 2

    def test_they_are_the_same_in_every_process_and_version(self) -> None:
        assert gram_buckets("a").tolist() == [20298, 25402, 20298, 32334, 3466, 3023]


class TestWeights:
    def test_they_add_up_by_the_square_root_of_their_number(self) -> None:
        grams = gram_buckets("hello")
        weights = np.zeros(GRAM_BUCKETS)
        weights[int(grams[1])] = 2.0

        said = CharacterGrams.rounded(weights).odds(grams.tobytes())

        assert said == pytest.approx(2.0 * np.count_nonzero(grams == grams[1]) / math.sqrt(len(grams)))

    def test_a_byte_holds_a_weight_to_within_half_a_step(self) -> None:
        weights = np.random.default_rng(3).normal(size=GRAM_BUCKETS)
        kept = CharacterGrams.rounded(weights)
        read = kept.scale * np.frombuffer(kept.weights, dtype=np.int8)
        assert float(np.abs(read - weights).max()) <= 0.5 * kept.scale + 1e-9
        assert kept.scale == pytest.approx(float(np.abs(weights).max()) / LARGEST)

    @pytest.mark.parametrize("grams", [b"", gram_buckets("x").tobytes()])
    def test_without_weights_they_say_nothing(self, grams: bytes) -> None:
        assert CharacterGrams().odds(grams) == 0.0
        assert CharacterGrams.rounded(np.zeros(GRAM_BUCKETS)).odds(grams) == 0.0

    def test_what_is_written_is_read(self) -> None:
        kept = CharacterGrams.rounded(np.linspace(-1, 1, GRAM_BUCKETS))
        assert CharacterGrams.from_text(kept.scale, kept.to_text()) == kept
        assert CharacterGrams.from_text(0.0, "") == CharacterGrams()

    @pytest.mark.parametrize("text", ["AAAA", "%", "A" * 7])
    def test_other_text_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError):
            CharacterGrams.from_text(1.0, text)
