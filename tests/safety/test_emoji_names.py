"""Emoji as words: what the classifier's first model reads in their place, and which character a word is from."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety.classifier.emoji_names import EmojiNames

NAMES = EmojiNames()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("Thanks 👍!", "Thanks  thumbs up !"),
        ("👍🏽", " thumbs up "),
        ("🔪you", " knife you"),
        ("❤", " heart "),
        ("✓ done", " check mark  done"),
        ("🇩🇪", "de"),
        ("a🔥b", "a fire b"),
        ("Größe → 5 €", "Größe → 5 €"),
        ("中文 한글 ا", "中文 한글 ا"),
        ("", ""),
    ],
    ids=str,
)
def test_an_emoji_is_read_by_its_name(text: str, named: str) -> None:
    assert NAMES(text) == named


def test_a_name_is_from_its_emoji() -> None:
    text = "So 👍🏽 nice"
    named = NAMES(text)
    words = [("So", "So"), ("thumbs", "👍"), ("up", "👍"), ("nice", "nice")]
    spans = [(named.index(word), named.index(word) + len(word)) for word, _ in words]

    assert [text[start:end] for start, end in NAMES.original(text, spans)] == [character for _, character in words]


@given(st.text(st.sampled_from("ab é中👍🏽🇩❤\ufe0f\u200d🔪\n")), st.data())
def test_places_in_the_text_are_in_order_and_within_it(text: str, data: st.DataObject) -> None:
    named = NAMES(text)
    ends = sorted(data.draw(st.sets(st.integers(0, len(named)))))

    found = NAMES.original(text, list(pairwise(ends)))

    assert all(0 <= start < end <= len(text) for start, end in found)
    assert all(before[0] <= after[0] and before[1] <= after[1] for before, after in pairwise(found))
