"""Reads an answer and judges it. Pure: a response and what was promised in, an Answer with at most one problem out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from load_tests.generator.wire import Response

DONE = b"[DONE]"


class Problem(StrEnum):
    """What can be wrong with an answer; only the first that is found is reported."""

    NOT_SENT = "not_sent"  # an open loop has more requests in flight than it may
    CONNECT = "connect"  # no connection
    TIMEOUT = "timeout"
    TRUNCATED = "truncated"  # the connection ended inside the response
    STATUS = "status"  # not 200
    MALFORMED = "malformed"  # a frame or body that is not the JSON it must be
    ERROR_FRAME = "error_frame"
    NO_DONE = "no_done"
    AFTER_DONE = "after_done"  # frames behind [DONE], or [DONE] twice
    NO_FINISH = "no_finish_reason"
    NO_USAGE = "no_usage"
    COUNT = "token_count"  # usage contradicts what was asked for
    MISMATCH = "mismatch"  # not the text that the same prompt gets alone


@dataclass(slots=True)
class Answer:
    """What one request got. Times are seconds on the clock of the run."""

    prompt: int  # index in the prompt set
    started: float
    ended: float = 0.0
    times: list[float] = field(default_factory=list)  # arrivals of frames that carry text
    text: str = ""
    finish_reason: str | None = None
    prompt_tokens: int = 0
    tokens: int = 0  # completion tokens as the server counted them
    problem: Problem | None = None
    detail: str = ""

    def fail(self, problem: Problem, detail: str = "") -> None:
        """Notes a problem, unless there is one already: later ones are mostly its consequences."""
        if self.problem is None:
            self.problem, self.detail = problem, detail[:200]


@dataclass(frozen=True, slots=True)
class Expectation:
    """What every answer of a run must satisfy."""

    max_tokens: int
    exact: bool = False  # exactly max_tokens: with ignore_eos
    references: tuple[str, ...] | None = None  # text per prompt


def frames(pieces: Iterable[tuple[float, bytes]]) -> Iterator[tuple[float, bytes]]:
    """The data of each SSE frame with the time when its last byte came; comments are left out.

    A last frame without its blank line is yielded too: what it lacks shows in its content.
    """
    rest = b""
    time = 0.0
    for time, piece in pieces:
        rest += piece
        if b"\r" in rest:
            rest = rest.replace(b"\r\n", b"\n")
        *complete, rest = rest.split(b"\n\n")
        for frame in complete:
            if data := _data(frame):
                yield time, data
    if data := _data(rest):
        yield time, data


def _data(frame: bytes) -> bytes:
    if frame.startswith(b"data:") and b"\n" not in frame:  # nearly always
        return frame[5:].strip()
    return b"\n".join(line[5:].strip() for line in frame.split(b"\n") if line.startswith(b"data:"))


def read_stream(answer: Answer, response: Response, origin: float) -> None:
    """Fills ``answer`` from an SSE response. ``origin`` is subtracted from times of arrival."""
    if not _accepted(answer, response):
        return
    texts: list[str] = []
    done = usage = False
    for time, data in frames(response.pieces):
        if done:
            answer.fail(Problem.AFTER_DONE, data.decode(errors="replace"))
            break
        if data == DONE:
            done = True
            continue
        body = _json(answer, data)
        if body is None:
            break
        usage = _take_usage(answer, body) or usage
        if text := _take_choice(answer, body, "delta"):
            texts.append(text)
            answer.times.append(time - origin)
    answer.text = "".join(texts)
    if not done:
        answer.fail(Problem.NO_DONE)
    _check_end(answer, usage)


def read_whole(answer: Answer, response: Response, origin: float) -> None:
    """Fills ``answer`` from a response that is one JSON document."""
    if not _accepted(answer, response):
        return
    body = _json(answer, response.body)
    if body is None:
        return
    usage = _take_usage(answer, body)
    answer.text = _take_choice(answer, body, "message")
    answer.times = [time - origin for time, _ in response.pieces[-1:]]
    _check_end(answer, usage)


def check(answer: Answer, expected: Expectation) -> None:
    """Compares a complete answer with what was promised."""
    if answer.problem is not None:
        return
    if answer.tokens > expected.max_tokens or (expected.exact and answer.tokens != expected.max_tokens):
        answer.fail(Problem.COUNT, f"{answer.tokens} tokens where max_tokens is {expected.max_tokens}")
    if answer.finish_reason == "length" and answer.tokens < expected.max_tokens:
        answer.fail(Problem.COUNT, f"finish_reason length after {answer.tokens} of {expected.max_tokens} tokens")
    if expected.references is not None and answer.text != expected.references[answer.prompt]:
        answer.fail(Problem.MISMATCH, difference(expected.references[answer.prompt], answer.text))


def difference(expected: str, got: str) -> str:
    """Where two texts part, with a little of each from there on."""
    pairs = enumerate(zip(expected, got, strict=False))
    at = next((i for i, (a, b) in pairs if a != b), min(len(expected), len(got)))
    return f"at character {at}: {expected[at : at + 40]!r} expected, {got[at : at + 40]!r} came"


def _accepted(answer: Answer, response: Response) -> bool:
    if response.status == 200:
        return True
    answer.fail(Problem.STATUS, f"{response.status} {response.body[:160].decode(errors='replace')}")
    return False


def _json(answer: Answer, data: bytes) -> dict[str, Any] | None:
    try:
        body = json.loads(data)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        answer.fail(Problem.MALFORMED, data[:160].decode(errors="replace"))
        return None
    if body.get("error"):
        answer.fail(Problem.ERROR_FRAME, json.dumps(body["error"]))
        return None
    return body


def _take_usage(answer: Answer, body: dict[str, Any]) -> bool:
    usage = body.get("usage")
    if not isinstance(usage, dict):
        return False
    answer.prompt_tokens = int(usage.get("prompt_tokens", 0))
    answer.tokens = int(usage.get("completion_tokens", 0))
    return True


def _take_choice(answer: Answer, body: dict[str, Any], part: str) -> str:
    choices = body.get("choices")
    if not choices:
        return ""  # the usage frame has none
    choice = choices[0]
    answer.finish_reason = choice.get("finish_reason") or answer.finish_reason
    return (choice.get(part) or {}).get("content") or ""


def _check_end(answer: Answer, usage: bool) -> None:
    if answer.finish_reason is None:
        answer.fail(Problem.NO_FINISH)
    if not usage:
        answer.fail(Problem.NO_USAGE)
