"""However the bytes of a response are cut on their way, the same chunks and frames come out, at the right times."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from load_tests.generator.answer import frames
from load_tests.generator.wire import content_length, split_chunks

FRAMES = st.lists(st.binary(min_size=1, max_size=20).filter(lambda b: b.strip() == b and not set(b) & {10, 13}))


def chunked(pieces: list[bytes]) -> bytes:
    """A chunked body."""
    return b"".join(f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in pieces) + b"0\r\n\r\n"


@given(st.lists(st.binary(min_size=1)))
def test_chunks_come_out_as_they_went_in(pieces: list[bytes]) -> None:
    body = chunked(pieces)
    ends = split_chunks(body, 0)

    assert ends is not None
    assert [body[start:end] for start, end in ends] == pieces


@given(st.lists(st.binary(min_size=1)), st.data())
def test_a_body_cut_short_is_never_complete(pieces: list[bytes], data: st.DataObject) -> None:
    body = chunked(pieces)

    assert split_chunks(body[: data.draw(st.integers(0, len(body) - 1))], 0) is None


@given(FRAMES, st.data())
def test_frames_do_not_depend_on_how_they_are_cut(payloads: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(b"data: " + payload + b"\n\n" for payload in payloads)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=5)))
    edges = [0, *cuts, len(stream)]
    pieces = [(float(at), stream[start:end]) for at, (start, end) in enumerate(pairwise(edges))]

    assert [payload for _, payload in frames(pieces)] == payloads


def test_a_frame_is_as_late_as_its_last_byte() -> None:
    pieces = [(1.0, b"data: a\n\nda"), (2.0, b"ta: b\n"), (3.0, b"\n: comment\n\n")]

    assert list(frames(pieces)) == [(1.0, b"a"), (3.0, b"b")]


def test_length_is_read_whatever_the_case() -> None:
    assert content_length(b"HTTP/1.1 200 OK\r\nCONTENT-LENGTH: 12") == 12
    assert content_length(b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\nContent-Length: 3") is None
    assert content_length(b"HTTP/1.1 204 No Content") == 0
