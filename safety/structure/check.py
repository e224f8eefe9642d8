"""``StructureCheck``: turns structural signals in a request's passages into verdicts.

Classifiers judge the decoded texts; they call ``decoded`` themselves. Here an encoded text has a low score, a hidden
one a high score.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from safety.api import UNTRUSTED, Action, Origin, Passage, Span, Verdict
from safety.structure.anomalies import anomalies
from safety.structure.decoded import HIDDEN
from safety.structure.markers import MarkerKind, role_markers
from safety.structure.payloads import decoded, is_full

VERSION = "2"
LONG = 4096
"""Passages from this length on are read on a thread, so that the event loop goes on."""
_CHECKED = frozenset({Origin.USER, Origin.HISTORY, *UNTRUSTED})

HIDING, ENCODED = 0.9, 0.3
"""The scores of hidden and of encoded texts."""
UNREAD = 0.7
"""The score of encoded texts of which there are more than are decoded and classified."""

_IN_PROMPTS = {
    MarkerKind.TURN: 0.7,
    MarkerKind.TOKEN: 0.5,
    MarkerKind.OPERATOR_LINE: 0.3,
    MarkerKind.SPEAKER_LINE: 0.1,
}
_IN_UNTRUSTED = {
    MarkerKind.TURN: 0.95,
    MarkerKind.TOKEN: 0.9,
    MarkerKind.OPERATOR_LINE: 0.7,
    MarkerKind.SPEAKER_LINE: 0.3,
}


@dataclass(frozen=True, slots=True)
class StructureSettings:
    """The settings of the check. ``block`` and ``review`` are the scores, 0 to 1, from which a signal is blocked or
    reviewed. ``max_characters`` is the size, in characters, that is an anomaly. ``prompts`` and ``untrusted`` are the
    scores of role markers in users' text and in untrusted text."""

    block: float = 0.85
    review: float = 0.6
    max_characters: int = 2_000_000
    prompts: Mapping[MarkerKind, float] = field(default_factory=lambda: _IN_PROMPTS)
    untrusted: Mapping[MarkerKind, float] = field(default_factory=lambda: _IN_UNTRUSTED)


class StructureCheck:
    """A Check with a verdict per passage and category: ``role_marker``, ``hidden_text``, ``encoded_text``, ``size``,
    ``odd_characters``, ``repetition``, ``script_mixture``. Operators' own passages and answers are not read.

    Verdicts on untrusted passages have spans, so that the policy may drop or quote only the passage. Anomalies are
    reviewed at most, never blocked.
    """

    def __init__(self, settings: StructureSettings | None = None) -> None:
        self._settings = settings or StructureSettings()

    @property
    def name(self) -> str:
        return "structure"

    @property
    def version(self) -> str:
        return VERSION

    async def check(self, passages: Sequence[Passage]) -> Sequence[Verdict]:
        """Returns the verdicts on the passages, several for a passage if it has several signals; see
        ``Check.check``."""
        verdicts: list[Verdict] = []
        for index, passage in enumerate(passages):
            if passage.origin not in _CHECKED:
                continue
            if len(passage.text) < LONG:
                await asyncio.sleep(0)  # a request may have thousands of passages
                verdicts += self.verdicts(passage, index)
            else:
                verdicts += await asyncio.to_thread(self.verdicts, passage, index)
        return verdicts

    def verdicts(self, passage: Passage, index: int = 0) -> list[Verdict]:
        """Returns the verdicts on one passage. ``index`` is its index in the request."""
        return [*self._markers(passage, index), *self._payloads(passage, index), *self._anomalies(passage, index)]

    def _anomalies(self, passage: Passage, index: int) -> Iterator[Verdict]:
        found = anomalies(passage.text, self._settings.max_characters)
        for category, score in (
            ("size", found.size if found.size >= 1 else 0.0),
            ("odd_characters", found.odd),
            ("repetition", found.repetition),
            ("script_mixture", found.mixture),
        ):
            if score >= self._settings.review:
                yield Verdict(self.name, VERSION, Action.REVIEW, category, score, index)

    def _markers(self, passage: Passage, index: int) -> Iterator[Verdict]:
        scores = self._settings.untrusted if passage.origin in UNTRUSTED else self._settings.prompts
        markers = list(role_markers(passage.text))
        if markers:
            spans = tuple(Span(marker.start, marker.end, "ROLE_MARKER") for marker in markers)
            yield self._verdict("role_marker", max(scores[marker.kind] for marker in markers), index, spans)

    def _payloads(self, passage: Passage, index: int) -> Iterator[Verdict]:
        parts = sorted(decoded(passage.text), key=lambda part: part.encodings[0] in HIDDEN)
        encoded = UNREAD if is_full(passage.text, parts) else ENCODED
        for hidden, group in groupby(parts, key=lambda part: part.encodings[0] in HIDDEN):
            spans = _disjoint([(part.start, part.end) for part in group], "HIDDEN_TEXT" if hidden else "ENCODED_TEXT")
            score = HIDING if hidden else encoded
            yield self._verdict("hidden_text" if hidden else "encoded_text", score, index, spans)

    def _verdict(self, category: str, score: float, index: int, spans: tuple[Span, ...]) -> Verdict:
        action = Action.ALLOW
        if score >= self._settings.review:
            action = Action.BLOCK if score >= self._settings.block else Action.REVIEW
        return Verdict(self.name, VERSION, action, category, score, index, spans)


def _disjoint(places: list[tuple[int, int]], kind: str) -> tuple[Span, ...]:
    """The places as spans, those that overlap as one."""
    spans: list[Span] = []
    for start, end in sorted(places):
        if spans and start < spans[-1].end:
            spans[-1] = Span(spans[-1].start, max(end, spans[-1].end), kind)
        else:
            spans.append(Span(start, end, kind))
    return tuple(spans)
