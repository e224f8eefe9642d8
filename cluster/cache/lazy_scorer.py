"""``LazyScorer``: a pair scorer whose model is loaded when the first candidate is found."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from router.ports.pair_scorer import Candidate, PairScorer


class LazyScorer:
    """Implements ``PairScorer``. A service whose questions never repeat does not pay for the model: about 95 MB.

    ``load`` is called once, on another thread. If it raises, so does each call of ``score`` that waits for it, and the
    next call tries again. ``version`` is the model's version.
    """

    def __init__(self, load: Callable[[], PairScorer], version: str) -> None:
        self._load = load
        self._version = version
        self._loading: asyncio.Task[PairScorer] | None = None

    @property
    def version(self) -> str:
        return self._version

    async def score(self, question: str, candidates: Sequence[Candidate]) -> Sequence[float]:
        """Returns the probability of each candidate, as ``PairScorer.score``. Raises what ``load`` raises."""
        if not candidates:
            return ()
        if self._loading is None or (self._loading.done() and _failed(self._loading)):
            self._loading = asyncio.create_task(asyncio.to_thread(self._load))
        # A caller whose deadline passes does not stop the loading, on which later ones wait.
        scorer = await asyncio.shield(self._loading)
        return await scorer.score(question, candidates)


def _failed(task: asyncio.Task[PairScorer]) -> bool:
    return task.cancelled() or task.exception() is not None
