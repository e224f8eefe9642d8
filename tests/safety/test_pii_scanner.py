"""Personal data in texts and streams."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safety.api import Action, Origin, Passage, Span
from safety.patterns.plain_text import PlainText
from safety.patterns.recogniser import MAX_CONTEXT, Candidate, Recogniser
from safety.patterns.scanner import find, starts
from safety.pii.check import PiiCheck
from safety.pii.kinds import KINDS, RECOGNISERS, PiiScanner, recognisers_of
from safety.redaction import redact

VALUES = {
    "EMAIL_ADDRESS": [
        "jane.doe+news@mail.example.co.uk", "o'brien@example.org", "jane (at) example (dot) com", "jane[at]example.com",
        "jane at example dot com", "jane @ example.com", "jane\u200b@exam\u00adple.com", "用户@例子.广告",
    ],
    "PHONE_NUMBER": [
        "+44 7700 900123", "+41 (0)62 585 51 90", "(555) 234-5678", "001-518-640-0854", "555.234.5678x45",
        "+1\u2011202\u2011555\u20110143", "01 84 17 61 18",
    ],
    "CREDIT_CARD": [
        "4111111111111111", "4111 1111 1111 1111", "4111-1111-1111-1111", "３７８２８２２４６３１０００５",
        "4111\u200b1111\u200b1111\u200b1111", "4111\u00a01111\u00a01111\u00a01111", "٤١١١١١١١١١١١١١١١",
    ],
    "IBAN_CODE": [
        "GB82 WEST 1234 5698 7654 32", "DE89370400440532013000", "gb82west12345698765432",
        "FR14 2004 1010 0505 0001 3M02 606",
    ],
    "IP_ADDRESS": ["192.168.17.4", "2001:db8::8a2e:370:7334", "fe80::1ff:fe23:4567:890a"],
    "MAC_ADDRESS": ["00:1B:44:11:3A:B7"],
    "US_SSN": ["536-90-4399"],
    "URL": ["https://example.com/a?b=c&d=e", "www.example.net/x", "ftp://example.org"],
    "CRYPTO": ["1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"],
    "FR_NIR": ["2 95 10 99 126 111 93"],
    "ES_NIF": ["54362315K"],
    "ES_NIE": ["X-2482300-W"],
    "IT_FISCAL_CODE": ["RCCMNL83S18D969H"],
    "BR_CPF": ["390.533.447-05"],
}  # fmt: skip
"""Values that need no word beside them. They are the examples of their standards, or made up."""

BESIDE = {
    "my phone: 467 3395": "467 3395",
    "call me at 0489 25 37 29 please": "0489 25 37 29",
    "3660170548 fax": "3660170548",
    "credit card 060426070011": "060426070011",
    "SSN 536904399": "536904399",
    "Steuer-ID: 36574261809": "36574261809",
    "NHS number 943 476 5919": "943 476 5919",
    "BSN: 111222333": "111222333",
    "Aadhaar 2341 2341 2346": "2341 2341 2346",
    "passport no C12345678": "C12345678",
    "driver's license F162823540116": "F162823540116",
    "routing number 021000021": "021000021",
}

HARMLESS = [
    "He sold 1,234,567 books in 2023 for $12.50 each, 48/2 = 24 clips.",
    "On 2021-01-05 at 12:30:45 it was 3.141592653589793.",
    "std::vector<a::b> x[1::2]; version 10.0.0.1 of it; Python 3.11.4",
    "order 1234567812345678 and 4111111111111112",
    "the array [1000000, 2000000, 3000000] and 100 200 300",
    "git@host and a @decorator; see file.py, e.g. at home. Look at the dot",
    "self.net.forward(x), os.path.join(a), logging.info(y)",
    "uuid 123e4567-e89b-12d3-a456-426614174000",
    "000-12-3456 666-12-3456 900-12-3456",
    "DE89370400440532013001",
]


def scan(text: str, cuts: list[int], kinds: frozenset[str] = KINDS) -> tuple[tuple[Span, ...], list[int]]:
    """The spans that a scanner finds in a text cut into pieces, and how much it holds back after each."""
    scanner = PiiScanner(kinds)
    found: list[Span] = []
    held: list[int] = []
    settled = 0
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        result = scanner.push(text[start:end], final=end == len(text) and len(held) == len(cuts))
        assert all(span.start >= settled for span in result.found)
        assert result.settled >= settled
        settled = result.settled
        found += result.found
        held.append(end - settled)
    assert settled == len(text)
    return tuple(found), held


@pytest.mark.parametrize(("kind", "value"), [(kind, value) for kind, values in VALUES.items() for value in values])
@pytest.mark.parametrize(
    "around", ["{}", "It is {}, I think.", 'x="{}"', "({})", '{{"a": "\\n{}\\n"}}', "первый {} 第二"]
)
def test_a_value_is_found_exactly(kind: str, value: str, around: str) -> None:
    text = around.format(value)
    start = text.index(value)

    assert Span(start, start + len(value), kind) in find(RECOGNISERS, text)


@pytest.mark.parametrize(("text", "value"), BESIDE.items())
def test_a_word_beside_it_makes_a_number_a_value(text: str, value: str) -> None:
    assert [text[span.start : span.end] for span in find(RECOGNISERS, text)] == [value]
    assert not find(RECOGNISERS, f"Take {value}" if " " not in value else "")


@pytest.mark.parametrize("text", HARMLESS)
def test_a_harmless_text_has_none(text: str) -> None:
    assert not find(RECOGNISERS, text)


PARTS = st.one_of(
    st.sampled_from([value for values in VALUES.values() for value in values] + list(BESIDE) + HARMLESS),
    st.text("ab1. @-:/+()\u200b٣x", max_size=12),
    st.sampled_from([" ", "\n", ", ", "", "(at)", " dot "]),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(PARTS, max_size=8).map("".join), st.data())
def test_any_cut_finds_the_same(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12)))
    whole, _ = scan(text, [])

    assert scan(text, cuts)[0] == whole
    assert scan(text, list(range(1, len(text))))[0] == whole


@pytest.mark.parametrize(("kind", "value"), [(kind, value) for kind, values in VALUES.items() for value in values])
def test_no_part_of_a_value_is_settled_before_it_is_found(kind: str, value: str) -> None:
    scanner = PiiScanner(KINDS)
    for character in "It is " + value:
        scan = scanner.push(character)
        assert scan.settled <= len("It is ")


@pytest.mark.parametrize("run", ["https://example.com/", "a" * 80, "4" * 30, "Ab1" * 30, "a.b-" * 20])
def test_a_long_run_is_held_in_part_only(run: str) -> None:
    text = "see " + run + "x" * 4096 + " and jane@example.com"
    found, held = scan(text, list(range(5, len(text), 5)))

    assert max(held) <= 512
    if run.startswith("http"):
        assert redact(text, found) == "see <URL> and <EMAIL_ADDRESS>"


def test_prose_is_held_by_a_word() -> None:
    text = "The quick brown fox jumps over the lazy dog and looks at the moon, which is bright tonight. " * 4
    _, held = scan(text, list(range(3, len(text), 3)))

    assert sorted(held)[len(held) // 2] <= 8
    assert max(held) <= 24


def test_an_address_in_a_longer_one_counts_once() -> None:
    (span,) = find(RECOGNISERS, "https://jane@example.com:80/10.0.0.1")

    assert span.kind == "URL"


HOSTILE = [
    "a",
    "1 ",
    "1",
    "a@",
    "a@a.",
    "(",
    "a (at) ",
    "1-",
    "GB82 ",
    "::",
    "a.",
    "+1(",
    "http://",
    "\u200b1",
    "1.2.",
    "a at b dot ",
]


@pytest.mark.parametrize("unit", HOSTILE)
def test_hostile_text_takes_linear_time(unit: str) -> None:
    def seconds(length: int) -> float:
        begin = time.process_time()
        find(RECOGNISERS, unit * (length // len(unit)))
        return time.process_time() - begin

    short = seconds(4000)

    assert seconds(16_000) < 8 * short + 0.1


@pytest.mark.parametrize("unit", ["a", "a.", "a@", "+1(", "http://"])
def test_100_kilobytes_of_hostile_text_are_read_at_once(unit: str) -> None:
    begin = time.process_time()
    find(RECOGNISERS, unit * (100_000 // len(unit)))

    assert time.process_time() - begin < 5.0


async def test_a_check_reports_the_passages_with_findings() -> None:
    check = PiiCheck(Action.BLOCK, {"EMAIL_ADDRESS"})
    texts = ["nothing", "jane@example.com", "4111111111111111"]

    (verdict,) = await check.check([Passage(text, Origin.USER) for text in texts])

    assert (verdict.passage, verdict.action, verdict.spans) == (1, Action.BLOCK, (Span(0, 16, "EMAIL_ADDRESS"),))


async def test_a_long_passage_is_checked_as_a_whole() -> None:
    text = "word " * 3000 + "jane@example.com " + "word " * 3000

    (verdict,) = await PiiCheck().check([Passage(text, Origin.DOCUMENT)])

    assert verdict.spans == (Span(15_000, 15_016, "EMAIL_ADDRESS"),)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="SHOE_SIZE"):
        recognisers_of({"SHOE_SIZE"})


@pytest.mark.parametrize("recogniser", RECOGNISERS, ids=lambda recogniser: recogniser.kind)
def test_the_gate_is_open_wherever_a_value_begins(recogniser: Recogniser) -> None:
    text = "\n".join([*(value for values in VALUES.values() for value in values), *BESIDE, *HARMLESS])
    plain = PlainText().push(text)
    gate = starts(recogniser.boundary, (recogniser.gate,))
    for match in recogniser.matched.finditer(plain, overlapped=True):
        if recogniser.validate(Candidate(match, plain[max(0, match.start() - MAX_CONTEXT) : match.start()])):
            assert gate.match(plain, match.start())
