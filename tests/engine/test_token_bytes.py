"""The bytes of tokens of byte-level vocabularies."""

from __future__ import annotations

import pytest

from engine.decode.detokenizer import byte_alphabet
from engine.token_bytes import _alphabet_bytes


def test_every_byte_has_a_character() -> None:
    alphabet = byte_alphabet()

    assert _alphabet_bytes("".join(alphabet)) == bytes(alphabet.values())


@pytest.mark.parametrize("outside", [" ", "\n", "\xa0", "\xad", "\x7f", "漢", "\U0001f600"])
def test_a_token_with_another_character_is_its_utf_8(outside: str) -> None:
    assert _alphabet_bytes(f"aé{outside}") == f"aé{outside}".encode()
