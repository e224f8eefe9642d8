"""``RememberingClassifier``: a classifier that does not score the same text of a tenant twice.

It keeps no text: scores are found by the digest of everything that they depend on. The beginnings of answers, the
histories of conversations and answers that come from the cache repeat, so that their checks cost nothing.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

from safety.api import Scores, TextClassifier

MAX_SCORES = 8192
"""The default for the most texts whose scores are kept; each takes about a kilobyte."""


class ScoreMemory:
    """An LRU cache of the scores of at most ``size`` texts, by their digests."""

    def __init__(self, size: int = MAX_SCORES) -> None:
        self._size = size
        self._scores: OrderedDict[bytes, Scores] = OrderedDict()

    def __len__(self) -> int:
        """Returns the number of texts."""
        return len(self._scores)

    def get(self, digest: bytes) -> Scores | None:
        """Returns the scores of the text with this digest; None if they are not in the cache."""
        found = self._scores.get(digest)
        if found is not None:
            self._scores.move_to_end(digest)
        return found

    def put(self, digest: bytes, scores: Scores) -> None:
        """Stores the scores of a text, and drops those that were not used for longest."""
        self._scores[digest] = scores
        self._scores.move_to_end(digest)
        while len(self._scores) > self._size:
            self._scores.popitem(last=False)


class RememberingClassifier:
    """Wraps ``classifier`` and asks it for the texts alone that are not in ``memory``. Implements ``TextClassifier``.

    Tenants share no scores: how fast an answer comes would tell one what another has sent. Another version of the
    classifier is asked again. Errors are not remembered.
    """

    def __init__(self, classifier: TextClassifier, memory: ScoreMemory | None = None) -> None:
        self._classifier = classifier
        self._memory = ScoreMemory() if memory is None else memory

    @property
    def version(self) -> str:
        return self._classifier.version

    async def classify(self, texts: Sequence[str], tenant: str = "", *, urgent: bool = False) -> Sequence[Scores]:
        version = self._classifier.version
        digests = {text: score_digest(tenant, version, text) for text in texts}
        known = {text: scores for text, digest in digests.items() if (scores := self._memory.get(digest)) is not None}
        if new := [text for text in digests if text not in known]:
            found = await self._classifier.classify(new, tenant, urgent=urgent)
            if len(found) != len(new):
                return found  # nonsense, which the caller refuses
            known.update(zip(new, found, strict=True))
            if self._classifier.version == version and are_probabilities(found):
                for text, scores in zip(new, found, strict=True):
                    self._memory.put(digests[text], scores)
        return [known[text] for text in texts]


def are_probabilities(scores: Sequence[Scores]) -> bool:
    """Returns whether all scores are probabilities: nonsense must not be remembered."""
    values = (value for each in scores for value in (each.injection, *each.categories.values()))
    return all(0 <= value <= 1 for value in values)


def score_digest(tenant: str, version: str, text: str) -> bytes:
    """Returns the digest of all that the scores of a tenant's text depend on."""
    digest = hashlib.blake2b(digest_size=20)
    for part in (tenant, version, text):
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.digest()
