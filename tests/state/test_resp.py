"""Commands and answers of Redis' protocol, in pieces of any size."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.exceptions import BusyLoadingError, InvalidResponse, NoScriptError, ReadOnlyError, ResponseError

from cluster.state.resp import answer_at, packed


def written(answer: object) -> bytes:
    """An answer as a server writes it."""
    match answer:
        case None:
            return b"$-1\r\n"
        case int():
            return b":%d\r\n" % answer
        case bytes():
            return b"$%d\r\n%b\r\n" % (len(answer), answer)
        case list():
            return b"*%d\r\n%b" % (len(answer), b"".join(map(written, answer)))
    raise AssertionError(answer)


ANSWERS = st.recursive(
    st.none() | st.integers(-(2**63), 2**63 - 1) | st.binary(max_size=40), lambda inner: st.lists(inner, max_size=4)
)


@given(st.lists(ANSWERS, max_size=8), st.data())
def test_answers_are_read_however_they_are_cut(answers: list[object], data: st.DataObject) -> None:
    sent = b"".join(map(written, answers))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=6)))
    found: list[object] = []
    rest = b""
    for first, end in zip([0, *cuts], [*cuts, len(sent)], strict=True):
        rest, place = rest + sent[first:end], 0
        while (read := answer_at(rest, place)) is not None:
            value, place = read
            found.append(value)
        rest = rest[place:]

    assert (found, rest) == (answers, b"")


@given(st.lists(st.text(max_size=20) | st.binary(max_size=20) | st.integers(), min_size=1, max_size=8))
def test_a_command_is_the_list_of_its_parts(parts: Sequence[str | bytes | int]) -> None:
    sent = packed(parts)

    expected = [part if isinstance(part, bytes) else str(part).encode() for part in parts]
    assert answer_at(sent, 0) == (expected, len(sent))


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b"-NOSCRIPT No matching script.\r\n", NoScriptError),
        (b"-READONLY You can't write against a read only replica.\r\n", ReadOnlyError),
        (b"-LOADING Redis is loading the dataset in memory\r\n", BusyLoadingError),
        (b"-ERR unknown operation\r\n", ResponseError),
    ],
)
def test_errors_are_those_of_the_client_library(line: bytes, kind: type[Exception]) -> None:
    found = answer_at(line, 0)
    assert found is not None
    assert type(found[0]) is kind


@pytest.mark.parametrize("data", [b"HTTP/1.1 400 Bad Request\r\n", b":x\r\n", b"$ten\r\n", b"\r\n"])
def test_what_is_no_answer_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidResponse):
        answer_at(data, 0)
