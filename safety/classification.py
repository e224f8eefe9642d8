"""``ClassifierCheck``: scores the passages of a request, and texts that are encoded in them, and compares the scores
with the policy."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import chain

from safety.api import (
    TOO_MUCH_ENCODED,
    UNTRUSTED,
    Action,
    ClassifierUnavailableError,
    Origin,
    Passage,
    Scores,
    Span,
    TextClassifier,
    Verdict,
)
from safety.check_policies import Band, ContentPolicy, DocumentBand
from safety.policy import PolicyConfig
from safety.quoting import DROPPED, closing_mark, opening_mark

logger = logging.getLogger(__name__)

MAX_INLINE = 4096
"""Characters of passages that are decoded without a turn of the event loop: about 6 ms. Longer ones are decoded on a
thread."""

SPARE_DECODED = 1 << 16
"""Characters of decoded texts that are classified of a request beyond as many as it has itself. Each passage may be
decoded several times, by each of its disguises; many such passages would take the classifier six times as long."""

CLASSIFIER, INJECTION = "classifier", "injection"

Decode = Callable[[str], Sequence[str]]
"""Returns the texts that are encoded within a text, such as in base64."""


class AbsentClassifier:
    """The classifier where none is configured: each call raises ClassifierUnavailableError, so that a policy that needs
    a classifier treats its texts as not checked."""

    version = ""

    async def classify(self, texts: Sequence[str], tenant: str = "", *, urgent: bool = False) -> Sequence[Scores]:
        raise ClassifierUnavailableError("there is no classifier")


class BoundedClassifier:
    """Wraps a classifier for texts of ``tenant``. Implements ``TextClassifier``. If the classifier takes longer than
    the seconds that ``deadline`` returns for a call's characters, raises another error or gives a malformed answer,
    this raises ClassifierUnavailableError."""

    def __init__(self, classifier: TextClassifier, deadline: Callable[[int], float], tenant: str = "") -> None:
        self._classifier = classifier
        self._deadline = deadline
        self._tenant = tenant

    @property
    def version(self) -> str:
        return self._classifier.version

    async def classify(self, texts: Sequence[str], tenant: str = "", *, urgent: bool = False) -> Sequence[Scores]:
        try:
            async with asyncio.timeout(self._deadline(sum(map(len, texts)))):
                scores = await self._classifier.classify(texts, tenant or self._tenant, urgent=urgent)
                return checked(scores, len(texts))
        except ClassifierUnavailableError:
            raise
        except TimeoutError:
            raise ClassifierUnavailableError("timeout") from None
        except Exception as fault:  # noqa: BLE001 whatever it is, the texts were not classified
            logger.error("the classifier failed: %s", type(fault).__name__)  # its message may quote a prompt
            raise ClassifierUnavailableError(type(fault).__name__) from None


class ClassifierCheck:
    """Checks for harmful content and prompt injections, with one call of the classifier for all passages. Implements
    ``Check``.

    The scores of a passage with encoded text are the highest of its own and those of the decoded texts. ``on_failure``
    is the action of the verdict if the classifier fails, and on passages whose decoded texts are too many with those
    before them: the decoded texts of all passages are classified up to their own length and SPARE_DECODED characters.
    """

    name = CLASSIFIER

    def __init__(self, policy: PolicyConfig, classifier: TextClassifier, decode: Decode, on_failure: Action) -> None:
        self._policy = policy
        self._classifier = classifier
        self._decode = decode
        self._on_failure = on_failure

    @property
    def version(self) -> str:
        return self._classifier.version

    async def check(self, passages: Sequence[Passage]) -> Sequence[Verdict]:
        readings, unread = bounded(await self._readings(passages))
        texts = list(dict.fromkeys(chain.from_iterable(readings)))
        if not texts:
            return []
        try:
            scores = dict(zip(texts, await self._classifier.classify(texts, urgent=True), strict=True))
        except ClassifierUnavailableError as error:
            return [Verdict(self.name, self.version, self._on_failure, error=str(error) or "unavailable")]
        found = [
            Verdict(self.name, self.version, self._on_failure, passage=place, error=TOO_MUCH_ENCODED)
            for place in unread
        ]
        for place, (passage, reading) in enumerate(zip(passages, readings, strict=True)):
            found += self._verdicts(place, passage, [scores[text] for text in reading])
        return sorted(found, key=lambda verdict: verdict.passage)

    async def _readings(self, passages: Sequence[Passage]) -> list[list[str]]:
        """Returns the texts to classify of each passage: its own, and what is encoded in it. None for white space."""
        readings: list[list[str]] = []
        inline = 0  # characters since the last turn of the event loop
        for text in (passage.text for passage in passages):
            if not text.strip():
                readings.append([])
                continue
            if len(text) > MAX_INLINE:
                found = await asyncio.to_thread(self._decode, text)
            else:
                inline += len(text)
                if inline > MAX_INLINE:
                    inline = len(text)
                    await asyncio.sleep(0)
                found = self._decode(text)
            readings.append([text, *found])
        return readings

    def _verdicts(self, place: int, passage: Passage, scores: Sequence[Scores]) -> list[Verdict]:
        found = [self._content(place, scores), self._injection(place, passage, scores)]
        return [verdict for verdict in found if verdict is not None]

    def _content(self, place: int, scores: Sequence[Scores]) -> Verdict | None:
        content = self._policy.content
        if content is None:
            return None
        verdict = content_verdict(content, self.version, worst_scores(scores))
        return None if verdict is None else replace(verdict, passage=place)

    def _injection(self, place: int, passage: Passage, scores: Sequence[Scores]) -> Verdict | None:
        band = injection_band(self._policy, passage.origin)
        score = max((each.injection for each in scores), default=0.0)
        if band is None:
            return None
        if isinstance(band, Band):
            action = action_of(band, score)
            spans: tuple[Span, ...] = ()
        elif score < band.threshold:
            return None
        else:
            action, spans = document_action(band, passage.origin), passage_spans(band, passage)
        if action is Action.ALLOW:
            return None
        return Verdict(self.name, self.version, action, INJECTION, score, place, spans)


def bounded(readings: Sequence[list[str]]) -> tuple[list[list[str]], list[int]]:
    """Returns the readings of the passages of a request, each with the passage's own text first, without the decoded
    texts beyond what is classified of a request; and the indices of the passages that had these."""
    room = SPARE_DECODED + sum(len(reading[0]) for reading in readings if reading)
    kept, unread = [], []
    for place, reading in enumerate(readings):
        size = sum(map(len, reading[1:]))
        if size > room:
            unread.append(place)
            kept.append(reading[:1])
        else:
            room -= size
            kept.append(reading)
    return kept, unread


DOCUMENT_ACTIONS = {
    "block": Action.BLOCK,
    "review": Action.REVIEW,
    "drop": Action.REDACT,
    "quote": Action.REDACT,
}
"""The action of a verdict for each action of ``DocumentBand``."""


def document_action(band: DocumentBand, origin: Origin) -> Action:
    """Returns the action for an injection in text from ``origin``. For the description of a tool, BLOCK takes the place
    of REDACT: the text is part of a schema, into which no note or marks can be put."""
    action = DOCUMENT_ACTIONS[band.action]
    return Action.BLOCK if origin is Origin.TOOL and action is Action.REDACT else action


def passage_spans(band: DocumentBand, passage: Passage) -> tuple[Span, ...]:
    """Returns the spans that drop a whole passage, or put marks around it; none for the description of a tool."""
    text = passage.text
    if passage.origin is Origin.TOOL:
        return ()
    if band.action == "drop":
        return (Span(0, len(text), INJECTION.upper(), DROPPED),)
    if band.action == "quote":
        before, after = opening_mark(text), closing_mark(text)
        return (Span(0, 0, "QUOTE", before), Span(len(text), len(text), "QUOTE", after))
    return ()


def injection_band(policy: PolicyConfig, origin: Origin) -> Band | DocumentBand | None:
    """Returns the thresholds of injections in text from ``origin``; None: it is not checked for them."""
    if origin in UNTRUSTED:
        return policy.injection.documents
    return policy.injection.system if origin is Origin.SYSTEM else policy.injection.user


def action_of(band: Band, score: float) -> Action:
    """Returns the action for ``score``."""
    if band.block is not None and score >= band.block:
        return Action.BLOCK
    return Action.REVIEW if band.review is not None and score >= band.review else Action.ALLOW


def content_verdict(content: ContentPolicy, version: str, scores: Mapping[str, float]) -> Verdict | None:
    """Returns the most severe verdict on the scores of categories; of equally severe ones, that of the highest score.
    Returns None if all scores are below the thresholds."""
    found = [
        Verdict(CLASSIFIER, version, action, category, score)
        for category, score in scores.items()
        if (action := action_of(content.band(category), score)) is not Action.ALLOW
    ]
    return max(found, key=lambda verdict: (verdict.action.severity, verdict.score), default=None)


def worst_scores(scores: Sequence[Scores]) -> dict[str, float]:
    """Returns the highest score of each category."""
    worst: dict[str, float] = {}
    for each in scores:
        for category, score in each.categories.items():
            worst[category] = max(score, worst.get(category, 0.0))
    return worst


def checked(scores: Sequence[Scores], count: int) -> Sequence[Scores]:
    """Returns ``scores``. Raises ClassifierUnavailableError unless there are ``count`` of them, and all scores are
    probabilities: NaN is below every threshold, so a malformed answer would let everything pass."""
    if len(scores) != count:
        raise ClassifierUnavailableError(f"the classifier answered {len(scores)} of {count} texts")
    for each in scores:
        if not each.categories or not all(0 <= value <= 1 for value in (each.injection, *each.categories.values())):
            raise ClassifierUnavailableError("the classifier's scores are no probabilities")
    return scores
