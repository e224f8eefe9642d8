"""What users of other recognisers reported as missed, as wrong, or as leaked."""

from __future__ import annotations

import pytest

from safety.patterns.scanner import find
from safety.pii.kinds import RECOGNISERS, PiiScanner
from safety.pii.restorer import Restorer


def found(text: str) -> list[tuple[str, str]]:
    """The kinds and values in a text."""
    return [(span.kind, text[span.start : span.end]) for span in find(RECOGNISERS, text)]


@pytest.mark.parametrize(
    ("country", "account"),
    [
        ("EG", "0019000500000000263180002"),
        ("IQ", "NBIQ850123456789012"),
        ("LY", "002048000020100120361"),
        ("LC", "HEMM000100010012001200023015"),
        ("SC", "SSCB11010000000000001497USD"),
        ("UA", "3223130000026007233566001"),
    ],
)
def test_the_registry_of_ibans_is_whole(country: str, account: str) -> None:
    """Presidio 2078: the countries were missing, so their accounts leaked."""
    check = 98 - int("".join(str(int(character, 36)) for character in f"{account}{country}00")) % 97
    iban = f"{country}{check:02d}{account}"
    printed = " ".join(iban[start : start + 4] for start in range(0, len(iban), 4))

    assert found(f"Pay to {iban}.") == [("IBAN_CODE", iban)]
    assert found(f"Pay to {printed} now.") == [("IBAN_CODE", printed)]


def test_a_word_after_an_iban_does_not_count() -> None:
    """Presidio 1795: the letters of the next word went into the check sum."""
    assert found("GB82 WEST 1234 5698 7654 32 failed") == [("IBAN_CODE", "GB82 WEST 1234 5698 7654 32")]
    assert not found("GB82 WEST 1234 5698 7654 33 failed")


@pytest.mark.parametrize("number", ["2.3500000000000001E-3", "5.8569999999999997E-2", "0.4111111111111111"])
def test_a_fraction_is_no_card(number: str) -> None:
    """Zaproxy 5841: the digits of floating-point numbers were taken for cards."""
    assert not found(f'"rate": "{number}"')


@pytest.mark.parametrize("card", ["6011577631711174", "6011-5776-3171-1174"])
def test_a_card_has_one_kind(card: str) -> None:
    """Presidio 47: a card was also reported as a telephone and a bank account number."""
    assert found(f"My credit card number is {card}") == [("CREDIT_CARD", card)]


def test_no_first_half_leaks() -> None:
    """Mastra 23783 and 21049: of a value in two chunks the first was sent."""
    scanner = PiiScanner()

    assert scanner.push("Write to jane.d").settled == len("Write to ")
    assert scanner.push("oe@example.com").settled == len("Write to ")
    assert [span.kind for span in scanner.push(" now").found] == ["EMAIL_ADDRESS"]


@pytest.mark.parametrize("pieces", [["<PER", "SON_1>"], ["<PERSON_", "1", ">"], ["<", "PERSON", "_1", "", ">"]])
def test_a_pseudonym_over_several_chunks_is_restored(pieces: list[str]) -> None:
    """LiteLLM 30206: pseudonyms split over chunks of a stream stayed."""
    restorer = Restorer({"PERSON_1": "Jane"})

    assert "".join(map(restorer.push, pieces)) + restorer.push("", final=True) == "<Jane>"


@pytest.mark.parametrize(
    "card", ["4111.1111.1111.1111", "4111  1111  1111  1111", "4111_1111_1111_1111", "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1"]
)
def test_a_card_with_other_separators_is_found(card: str) -> None:
    assert found(f"{card} 12/27 123") == [("CREDIT_CARD", card)]


@pytest.mark.parametrize(
    "text",
    [
        '{"product_id": 3074185296}',
        "created_at 1755302400",
        "Item 4123456789012 is out of stock",
        "Order PO1234567 for part X12345",
        "hosted-eu-20260812-09",
        'parcel_id: "12-3456789.000"',
        "build number 2024 1130 0917",
    ],
)
def test_an_identifier_is_no_telephone_number_and_no_card(text: str) -> None:
    """llmgateway 3641, langwatch 7017, gstack 2591: identifiers and times were redacted for their shape."""
    assert not found(text)


@pytest.mark.parametrize(
    "text",
    [
        "## [1.10.0.0] - 2026-09-12",
        "Bump version to 1.84.1.0",
        '"version": "1.84.1.0"',
        "APP_VERSION=1.84.1.0",
        "Ver. 1.84.1.0",
        "v1.84.1.0",
        "see section 1.2.3.4",
        "releases: 1.84.1.0",
    ],
)
def test_a_version_is_no_address(text: str) -> None:
    """gstack 2856: the headings of a changelog were taken for addresses."""
    assert not found(text)


@pytest.mark.parametrize(
    "before",
    ["via", "visit", "VM", "vpn:", "verify", "builder", "release on", "build 5 on", "version 2 runs at", "# "],
)
def test_a_word_that_begins_like_one_for_versions_hides_no_address(before: str) -> None:
    assert found(f"{before} 10.0.0.1") == [("IP_ADDRESS", "10.0.0.1")]


@pytest.mark.parametrize(
    "before",
    [
        "Taxi:",
        "TAXI",
        "Cardiff",
        "my accountant",
        "the cardiologist",
        "Casey",
        "Ticketmaster",
        "My order is late, call",
    ],
)
def test_a_word_that_begins_like_one_for_other_numbers_hides_no_telephone_number(before: str) -> None:
    assert found(f"{before} 212-555-0147") == [("PHONE_NUMBER", "212-555-0147")]


@pytest.mark.parametrize(
    "before", ["order", "Orders:", "order no.", "orderNo", "account number:", "case id", "call about account", "taxes"]
)
def test_a_number_of_something_else_is_no_telephone_number(before: str) -> None:
    assert not found(f"{before} 212-555-0147")
