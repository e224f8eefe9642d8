"""What a client got of one answer, and how it differs from what it should have got. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

DONE = "[DONE]"
COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")
"""The counts of ``usage`` that are compared. How much of a prompt was cached depends on the replica."""


@dataclass(slots=True)
class Choice:
    """One answer. ``calls`` are names and arguments of tool calls, by their index. Ids of calls are not kept: they are
    random."""

    text: str = ""
    calls: dict[int, list[str]] = field(default_factory=dict)
    logprobs: list[Any] = field(default_factory=list)
    finish_reason: str | None = None


@dataclass(slots=True)
class Transcript:
    """All answers to one request. ``times`` are the arrivals of events that carry some of an answer, in seconds on the
    caller's clock. ``problem`` says why the transcript is not whole; None: it is."""

    choices: dict[int, Choice] = field(default_factory=dict)
    usage: dict[str, int] = field(default_factory=dict)
    prompt_logprobs: Any = None
    failovers: int = 0
    times: list[float] = field(default_factory=list)
    problem: str | None = None
    done: bool = False

    def take(self, data: str, time: float) -> None:
        """Adds the data of one SSE event. Raises ValueError for data that is not the JSON it must be."""
        if self.done:
            self.problem = self.problem or "an event came after [DONE]"
        elif data == DONE:
            self.done = True
        else:
            self._add(_document(data), "delta", time)

    def take_whole(self, text: str, time: float) -> None:
        """Adds the body of a whole answer. Raises ValueError as ``take`` does."""
        self._add(_document(text), "message", time)
        self.done = True

    def close(self) -> None:
        """Notes as a problem what is missing at the end of the response."""
        if not self.done:
            self.problem = self.problem or "the stream ended before [DONE]"
        elif not self.choices or any(choice.finish_reason is None for choice in self.choices.values()):
            self.problem = self.problem or "an answer has no finish_reason"
        elif not self.usage:
            self.problem = self.problem or "there is no usage"

    def _add(self, document: Mapping[str, Any], part: str, time: float) -> None:
        if error := document.get("error"):
            self.problem = self.problem or f"error: {json.dumps(error)[:300]}"
            return
        if usage := document.get("usage"):
            if self.usage:
                self.problem = self.problem or "usage came twice"
            self.usage = {name: usage[name] for name in COUNTS if name in usage}
            self.failovers = _failovers(usage)
        self.prompt_logprobs = document.get("prompt_logprobs", self.prompt_logprobs)
        carries = [self._add_choice(choice, choice.get(part) or {}) for choice in document.get("choices", ())]
        if any(carries):
            self.times.append(time)

    def _add_choice(self, data: Mapping[str, Any], message: Mapping[str, Any]) -> bool:
        """Returns whether the event carries some of the answer."""
        choice = self.choices.setdefault(int(data.get("index", 0)), Choice())
        if choice.finish_reason is not None:
            self.problem = self.problem or "an answer went on after its finish_reason"
        text, calls = message.get("content") or "", message.get("tool_calls") or ()
        logprobs = (data.get("logprobs") or {}).get("content") or ()
        choice.text += text
        choice.logprobs += logprobs
        for place, call in enumerate(calls):
            kept = choice.calls.setdefault(int(call.get("index", place)), ["", ""])
            function = call.get("function") or {}
            kept[0] += function.get("name") or ""
            kept[1] += function.get("arguments") or ""
        choice.finish_reason = data.get("finish_reason") or choice.finish_reason
        return bool(text or calls or logprobs)


def difference(expected: Transcript, got: Transcript) -> str | None:
    """Returns where ``got`` first differs from ``expected``; None: they are the same. Times are not compared."""
    if sorted(expected.choices) != sorted(got.choices):
        return f"choices {sorted(got.choices)} came, {sorted(expected.choices)} were expected"
    for index, choice in sorted(expected.choices.items()):
        if (found := _choice_difference(choice, got.choices[index])) is not None:
            return f"choice {index}: {found}"
    if expected.usage != got.usage:
        return f"usage: {got.usage} came, {expected.usage} was expected"
    if expected.prompt_logprobs != got.prompt_logprobs:
        return "prompt_logprobs differ"
    return None


def longest_pause(times: Sequence[float], since: float) -> float | None:
    """Returns the longest gap between two events in a row of which the later came after ``since``, in seconds; None if
    there is none, since the stream had ended by then or has a single event."""
    gaps = [later - earlier for earlier, later in pairwise(times) if later > since]
    return max(gaps, default=None)


def _choice_difference(expected: Choice, got: Choice) -> str | None:
    if expected.text != got.text:
        return f"text {_parting(expected.text, got.text)}"
    if expected.calls != got.calls:
        return f"tool calls {got.calls} came, {expected.calls} were expected"
    pairs = zip(expected.logprobs, got.logprobs, strict=False)
    for place, (one, other) in enumerate(pairs):
        if one != other:
            return (
                f"log probabilities of token {place}: {json.dumps(other)[:120]} came, {json.dumps(one)[:120]} expected"
            )
    if len(expected.logprobs) != len(got.logprobs):
        return f"log probabilities of {len(got.logprobs)} tokens came, of {len(expected.logprobs)} were expected"
    if expected.finish_reason != got.finish_reason:
        return f"finish_reason {got.finish_reason} came, {expected.finish_reason} was expected"
    return None


def _parting(expected: str, got: str) -> str:
    pairs = enumerate(zip(expected, got, strict=False))
    at = next((place for place, (one, other) in pairs if one != other), min(len(expected), len(got)))
    return f"from character {at} on: {got[at : at + 40]!r} came, {expected[at : at + 40]!r} was expected"


def _document(data: str) -> dict[str, Any]:
    document = json.loads(data)
    if not isinstance(document, dict):
        raise ValueError(f"not a JSON object: {data[:80]}")
    return document


def _failovers(usage: Mapping[str, Any]) -> int:
    """Returns the failovers that ``usage``, or one of its details, tells."""
    details = [usage, *(value for value in usage.values() if isinstance(value, Mapping))]
    return max((int(detail.get("failovers") or 0) for detail in details), default=0)
