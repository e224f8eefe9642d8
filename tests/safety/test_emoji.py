"""What the classifier's first model reads in place of emoji."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety.classifier.emoji import without_emoji


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("Thanks 👍!", "Thanks  !"),
        ("👍🏽", "  "),
        ("🇩🇪", "  "),
        ("❤ ✓", "   "),
        ("a🔥b", "a b"),
        ("Größe → 5 €", "Größe → 5 €"),
        ("中文 한글 ا", "中文 한글 ا"),
        ("", ""),
    ],
    ids=str,
)
def test_an_emoji_is_read_as_a_space(text: str, read: str) -> None:
    assert without_emoji(text) == read


@given(st.text() | st.text(st.sampled_from("ab é中👍🏽🇩❤\ufe0f\u200d🔪\n")))
def test_all_other_characters_keep_their_places(text: str) -> None:
    read = without_emoji(text)

    assert len(read) == len(text)
    assert all(new in (old, " ") for old, new in zip(text, read, strict=True))
    assert without_emoji(read) == read
