"""Pseudonyms come back as the values that they stand for."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from safety.patterns.scanner import find
from safety.pii.kinds import RECOGNISERS
from safety.pii.pseudonyms import PSEUDONYM, Pseudonymiser
from safety.pii.restorer import Restorer
from safety.redaction import redact

FILLERS = [
    "Dear ",
    ", write to ",
    ".\n",
    " or call ",
    " (",
    ") ",
    "EMAIL_ADDRESS_3 ",
    "CREDIT_CARD_",
    " 12",
    '"',
    "é\\",
]
TOKENS = st.sampled_from(
    ["<", ">", "EMAIL_", "EMAIL_ADDRESS_", "1", "12", "_", "PHONE_NUMBER_1", " ", "n", "\\", "ok", "."]
)


def addresses(count: int) -> list[str]:
    """Distinct e-mail addresses."""
    return [f"person{number}@example.org" for number in range(count)]


VALUES = [
    *addresses(14),
    "+44 7700 900123",
    "4111 1111 1111 1111",
    "GB82WEST12345698765432",
    "192.168.17.4",
    "o'neil@example.org",
]
conversations = st.lists(
    st.lists(st.sampled_from(FILLERS + VALUES + VALUES), max_size=12).map(" ".join), min_size=1, max_size=3
)


def restored(restorer: Restorer, text: str, cuts: list[int]) -> str:
    """What comes out of a restorer for a text cut into pieces."""
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    return "".join(restorer.push(piece, final=index == len(cuts)) for index, piece in enumerate(pieces))


@pytest.mark.parametrize(
    "text",
    [
        " or call  4111 1111 1111 1111 4111 1111 1111 1111",  # a card, and spans that begin where it ends
        "+44 7700 900123 4111 1111 1111 1111 192.168.17.4",  # groups of digits that end within an address
    ],
)
def test_values_that_touch_come_back(text: str) -> None:
    pseudonymiser = Pseudonymiser([text])
    sent = redact(text, pseudonymiser.replace(text, find(RECOGNISERS, text)))

    assert not find(RECOGNISERS, sent)
    assert restored(Restorer(pseudonymiser.restored), sent, []) == text


@settings(max_examples=500, deadline=None)
@given(conversations, st.data())
def test_a_conversation_comes_back(texts: list[str], data: st.DataObject) -> None:
    pseudonymiser = Pseudonymiser(texts)
    sent = [redact(text, pseudonymiser.replace(text, find(RECOGNISERS, text))) for text in texts]
    answer = "\n".join(sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(answer)), max_size=20)))

    assert not any(find(RECOGNISERS, text) for text in sent)
    assert restored(Restorer(pseudonymiser.restored), answer, cuts) == "\n".join(texts)
    arguments = json.dumps({"text": answer})
    cuts = sorted(data.draw(st.lists(st.integers(0, len(arguments)), max_size=20)))
    assert json.loads(restored(Restorer(pseudonymiser.restored, in_json=True), arguments, cuts)) == {
        "text": "\n".join(texts)
    }


@settings(max_examples=200, deadline=None)
@given(st.lists(TOKENS, max_size=14).map("".join))
@example("EMAIL_ADDRESS_1EMAIL_ADDRESS_12 EMAIL_ADDRESS_123")
def test_any_cut_of_an_answer_gives_the_same(answer: str) -> None:
    values = {"EMAIL_ADDRESS_1": "a@b.org", "EMAIL_ADDRESS_12": "c@d.org", "PHONE_NUMBER_1": "EMAIL_ADDRESS_1"}
    whole = Restorer(values).push(answer, final=True)

    assert restored(Restorer(values), answer, list(range(1, len(answer)))) == whole


def test_a_pseudonym_that_begins_like_another_stands_for_its_own_value() -> None:
    values = {"EMAIL_ADDRESS_1": "one@example.org", "EMAIL_ADDRESS_12": "twelve@example.org"}
    restorer = Restorer(values)

    assert restorer.push("To EMAIL_ADDRESS_1") == "To "
    assert restorer.push("2, EMAIL_ADDRESS_1") == "twelve@example.org, "
    assert restorer.push(" EMAIL_ADDRESS_13", final=True) == "one@example.org EMAIL_ADDRESS_13"


def test_a_value_has_one_pseudonym_in_all_texts() -> None:
    texts = ["a@example.org, b@example.org", "b@example.org", "A@example.org"]
    pseudonymiser = Pseudonymiser(texts)
    sent = [redact(text, pseudonymiser.replace(text, find(RECOGNISERS, text))) for text in texts]

    assert sent == ["EMAIL_ADDRESS_1, EMAIL_ADDRESS_2", "EMAIL_ADDRESS_2", "EMAIL_ADDRESS_3"]


def test_a_word_of_the_text_is_no_pseudonym() -> None:
    text = "EMAIL_ADDRESS_1 is not a@example.org"
    pseudonymiser = Pseudonymiser([text])
    sent = redact(text, pseudonymiser.replace(text, find(RECOGNISERS, text)))

    assert sent == "EMAIL_ADDRESS_1 is not EMAIL_ADDRESS_2"
    assert Restorer(pseudonymiser.restored).push(sent, final=True) == text


def test_a_value_is_escaped_in_json() -> None:
    restorer = Restorer({"EMAIL_ADDRESS_1": '"o\\neil"@example.org'}, in_json=True)
    arguments = restorer.push(r'{"to": "x\nEMAIL_ADDRESS_1\nEMAIL_ADDRESS_1"}', final=True)

    assert json.loads(arguments) == {"to": 'x\n"o\\neil"@example.org\n"o\\neil"@example.org'}


@pytest.mark.parametrize("text", ["MY_EMAIL_ADDRESS_1", "xEMAIL_ADDRESS_1", "EMAIL_ADDRESS_10", "email_address_1"])
def test_another_name_is_left_alone(text: str) -> None:
    assert Restorer({"EMAIL_ADDRESS_1": "a@b.org"}).push(text, final=True) == text


def test_without_pseudonyms_nothing_is_held() -> None:
    assert Restorer({}).push("EMAIL_ADDRESS_") == "EMAIL_ADDRESS_"


def test_prose_is_not_held() -> None:
    restorer = Restorer({"EMAIL_ADDRESS_1": "a@b.org"})

    assert [restorer.push(piece) for piece in ("Every ", "EM", "U is ", "E", "MAIL")] == [
        "Every ",
        "",
        "EMU is ",
        "",
        "",
    ]


def test_the_form_of_a_pseudonym_is_recognised() -> None:
    assert PSEUDONYM.fullmatch("EMAIL_ADDRESS_1")
