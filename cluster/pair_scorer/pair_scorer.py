"""``LocalPairScorer``: a ``PairScorer`` that computes in this process, on a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cluster.pair_scorer.pair_model import PairModel
from router.ports.pair_scorer import Candidate

MODEL = Path(__file__).resolve().parents[2] / "deployments" / "models" / "cache_pairs"
"""The pair model that ships."""


class LocalPairScorer:
    """Implements ``PairScorer``. Calls are scored one after another on the thread, so that the event loop is not
    blocked."""

    def __init__(self, directory: Path = MODEL) -> None:
        """Loads the model. Raises what ``PairModel`` raises."""
        self._model = PairModel(directory)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pair-scorer")

    @property
    def version(self) -> str:
        """The version in the model's ``config.json``."""
        return self._model.artefact.version

    async def score(self, question: str, candidates: Sequence[Candidate]) -> Sequence[float]:
        """Returns the probability of each candidate, in order. Raises ValueError for a cosine that is not finite."""
        if not candidates:
            return ()
        others, cosines = zip(*candidates, strict=True)
        loop = asyncio.get_running_loop()
        scored = await loop.run_in_executor(self._thread, self._model.probabilities, question, others, cosines)
        return [float(score) for score in scored]

    def close(self) -> None:
        """Ends the thread after its present call. Further calls raise RuntimeError."""
        self._thread.shutdown(wait=False)
