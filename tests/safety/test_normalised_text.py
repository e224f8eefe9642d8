"""Text is read as a person reads it, wherever it is cut, and every letter knows where it comes from."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety.text.folding import SEPARATOR, fold
from safety.text.normalised import Letter, Normaliser, normalise
from tests.safety.streams import CUTS, pieces_of


@pytest.mark.parametrize(
    ("disguised", "plain"),
    [
        ("BoMb", "bomb"),
        ("b\u00f6m\u0300b", "bomb"),
        ("ｂｏｍｂ 𝖇𝖔𝖒𝖇 𝓫𝓸𝓶𝓫 ⓑⓞⓜⓑ", "bomb bomb bomb bomb"),
        ("🅱🅾🅼🅱", "bomb"),
        ("bоmb ьоmЬ", "bomb bomb"),  # Cyrillic
        ("ɪɢɴᴏʀᴇ", "ignore"),
        ("bø\u200bm\u00adb", "bomb"),
        ("b\U000e0061om\ufe0fb\x00", "bomb"),  # tag character, variation selector, control
        ("b\u115fo\u3164m\u2063b", "bomb"),  # fillers
        ("b-o  m\n.b!", "b o m b"),
        ("straße ﬁ", "strasse fi"),
        ("ΛΌΓΟΣ λόγος", "λoyos λoyos"),  # both cases, final sigma, accent
        ("हिन्दी が", "हिन्दी か\u3099"),  # vowel signs and voicing marks are not accents
        ("🇺🇸", "u s"),
        ("і\u202eg", "ig"),
    ],
)
def test_a_disguise_is_read_as_the_word(disguised: str, plain: str) -> None:
    assert normalise(disguised).text == plain


@pytest.mark.parametrize(("leet", "plain"), [("b0mb", "bomb"), ("a$$", "ass"), ("h3ll0 w0r1d", "hello worid")])
def test_digits_stand_for_letters_only_on_request(leet: str, plain: str) -> None:
    assert normalise(leet, leet=True).text == plain
    assert normalise(leet).text != plain


@given(st.text(max_size=40) | st.text(alphabet="aB\u0301é\u200bßﬁ が\u3099-½Й", max_size=40), CUTS)
def test_a_text_in_pieces_has_the_letters_of_the_whole(text: str, cuts: list[int]) -> None:
    normaliser = Normaliser()
    letters: list[Letter] = []
    for piece in pieces_of(text, cuts):
        letters += normaliser.push(piece)

    assert letters == Normaliser().push(text)


@given(st.text(max_size=40))
def test_every_letter_maps_back_to_the_character_that_folds_to_it(text: str) -> None:
    normalised = normalise(text)

    for index, char in enumerate(normalised.text):
        start, end = normalised.original(index, index + 1)
        if char == SEPARATOR:
            assert any(SEPARATOR in fold(skipped) for skipped in text[max(0, start - 1) : end + 1])
        else:
            assert char in fold(text[start:end])


def test_no_form_of_a_character_makes_a_difference() -> None:
    for code in range(0x2_0000):
        char = chr(code)
        if 0xD800 <= code < 0xE000:
            continue
        folded = fold(char)
        assert "".join(map(fold, unicodedata.normalize("NFD", char))) == folded, hex(code)
        assert "".join(map(fold, folded)) == folded, hex(code)


def test_positions_of_the_original_are_found() -> None:
    normalised = normalise("  Á\u200bb, c")

    assert normalised.text == "ab c"
    assert normalised.original(0, 2) == (2, 5)
    assert [normalised.position(offset) for offset in (0, 2, 4, 5, 7)] == [0, 0, 1, 2, 3]
