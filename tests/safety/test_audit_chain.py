"""The hash chain of the audit log: any change is found, at the first record that is not as it was written."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.ports.audit_store import AuditDay, AuditEntry
from router.review.audit_chain import GENESIS, HASH_LENGTH, ChainVerifier, extended, opening_fault, verify

COUNT = 6


def day_of(lines: list[str], opening: str = GENESIS) -> AuditDay:
    return AuditDay("acme", 20_000, opening, len(lines), lines[-1][:HASH_LENGTH], len(lines))


LINES = extended(
    GENESIS, 0, [AuditEntry(f"e{n}", "acme", json.dumps({"check": "é", "score": n / 10})) for n in range(COUNT)]
)
DAY = day_of(LINES)
OTHER = AuditEntry("x", "acme", "{}")


def test_a_chain_as_it_was_written_is_valid_however_it_is_read() -> None:
    assert verify(DAY, LINES) is None
    verifier = ChainVerifier(GENESIS)
    for place in range(0, COUNT, 4):
        verifier.push(LINES[place : place + 4])
    assert verifier.end(DAY) is None


def test_the_hash_is_sha256_of_the_hash_before_and_the_record() -> None:
    (line,) = extended(GENESIS, 0, [AuditEntry("e", "acme", '{"b": 1, "a": "\\u00e9"}')])

    # The hash is that of the command sha256sum.
    assert line.split(" ")[1] == '{"a":"\\u00e9","b":1,"id":"e","number":1}'
    assert line.split(" ")[0] == "268dfe1d261e953026046a9f30a432e5f3060e9755a4a909eda7fe1451b9588c"


@given(record=st.integers(0, COUNT - 1), place=st.integers(0, 200), byte=st.integers(32, 126))
def test_a_changed_byte_is_found_at_its_record(record: int, place: int, byte: int) -> None:
    line = LINES[record]
    place %= len(line)
    changed = line[:place] + chr(byte) + line[place + 1 :]

    fault = verify(DAY, [*LINES[:record], changed, *LINES[record + 1 :]])

    if changed == line:
        assert fault is None
    else:
        assert fault is not None
        assert fault.record == record + 1


@pytest.mark.parametrize(
    ("change", "record", "reason"),
    [
        (lambda lines: lines[:2] + lines[3:], 3, "missing"),
        (lambda lines: lines[1:], 1, "missing"),
        (lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]], 3, "missing"),
        (lambda lines: lines[:3] + lines[2:], 4, "out of place"),  # written twice, which is no removal
        (lambda lines: lines[:-1], COUNT, "missing"),
        (lambda lines: [], 1, "missing"),
        (
            lambda lines: [*lines, *extended(lines[-1][:64], COUNT, [AuditEntry("x", "acme", "{}")])],
            COUNT + 1,
            "surplus",
        ),
        (lambda lines: [*lines[:2], "", *lines[3:]], 3, "no record"),
        (lambda lines: [*lines[:2], lines[2].replace('"number":3', '"number":true'), *lines[3:]], 3, "out of place"),
        # Rewritten to the end, as only the head shows.
        (lambda lines: [*lines[:5], *extended(lines[4][:64], 5, [OTHER])], COUNT, "head"),
        (lambda lines: [*lines[:2], *extended("1" * 64, 2, [OTHER]), *lines[3:]], 3, "changed"),
    ],
)
def test_a_chain_that_was_changed_names_its_first_bad_record(
    change: Callable[[list[str]], list[str]], record: int, reason: str
) -> None:
    fault = verify(DAY, change(list(LINES)))

    assert fault is not None
    assert (fault.record, reason in fault.reason) == (record, True), fault


@given(st.permutations(LINES))
def test_no_other_order_is_valid(lines: list[str]) -> None:
    fault = verify(DAY, lines)
    first = next((place for place in range(COUNT) if lines[place] != LINES[place]), None)

    assert (None if fault is None else fault.record - 1) == first


def test_a_day_that_is_removed_with_its_head_is_missed() -> None:
    second = day_of(extended(DAY.head, 0, [AuditEntry("f", "acme", "{}")]), DAY.head)
    third = replace(day_of(extended(second.head, 0, [AuditEntry("g", "acme", "{}")]), second.head), day=20_005)

    assert [opening_fault([DAY, second, third], place) for place in range(3)] == [None] * 3
    removed = opening_fault([DAY, third], 1)
    assert removed is not None
    assert removed.record == 0
    assert opening_fault([second], 0) is not None


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_a_record_that_is_no_json_is_never_chained(score: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        extended(GENESIS, 0, [AuditEntry("e", "acme", json.dumps({"score": score}))])
