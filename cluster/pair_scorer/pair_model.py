"""``PairModel``: the cross-encoder and its head. It scores pairs of questions on the calling thread."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cluster.pair_scorer.pair_model_files import ArtefactError, read_artefact
from safety.encoder.encoder import Encoder
from safety.encoder.precision import Precision
from safety.encoder.weights import Weights
from safety.encoder.word_pieces import WordPieces

SPECIAL_TOKENS = 3
"""``[CLS] one [SEP] other [SEP]``."""


class PairModel:
    """A loaded pair model. Its methods release Python's lock while they compute, and must be called on one thread at a
    time."""

    def __init__(self, directory: Path, precision: Precision = Precision.INT8) -> None:
        """Loads ``config.json``, ``vocab.txt`` and ``model.safetensors``.

        Raises OSError for a missing file, and ArtefactError or UnsupportedEncoderError for files that do not fit.
        """
        self.artefact = read_artefact(directory)
        self._pieces = WordPieces(directory / "vocab.txt")
        weights = Weights.read(directory / "model.safetensors")
        self._head = weights.dense("head.weight").copy()  # a copy, so that the file's memory is freed
        self._bias = weights.dense("head.bias").copy()
        shape = (1, 2 * self.artefact.architecture.hidden)
        if self._head.shape != shape or self._bias.shape != shape[:1]:
            raise ArtefactError(f"head.weight must be {list(shape)}, not {list(self._head.shape)}")
        self._encoder = Encoder(self.artefact.architecture, weights, precision, token_types=2)

    def probabilities(self, question: str, others: Sequence[str], cosines: Sequence[float]) -> NDArray[np.float64]:
        """Returns, for each of ``others``, the probability that it asks for the same answer as ``question``: float64
        [others].

        ``cosines`` are those of the embeddings of ``question`` and of each of ``others``. A pair that is too long for
        the model has the probability 0. Raises ValueError for a cosine that is not finite.
        """
        return self.combined(self.logits([(question, other) for other in others]), np.asarray(cosines, np.float64))

    def combined(self, logits: NDArray[np.floating], cosines: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns the probabilities of pairs, float64 [pairs], from the result of ``logits`` and the pairs' cosines,
        both [pairs].

        Raises ValueError for a cosine that is not finite.
        """
        if not np.isfinite(cosines).all():
            raise ValueError("a cosine is no number")
        weights = self.artefact.combination
        combined = weights.pair * logits.astype(np.float64) + weights.cosine * cosines + weights.offset
        # The sigmoid by the hyperbolic tangent, which does not overflow. Of minus infinity it is 0.
        result: NDArray[np.float64] = 0.5 * (1 + np.tanh(0.5 * combined))
        return result

    def logits(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """Returns the model's outputs for pairs, each the mean of both orders, float32 [pairs]; minus infinity for a
        pair that is too long. A text that is in several pairs is tokenised once."""
        pieces = {text: self._pieces(text) for text in {text for pair in pairs for text in pair}}
        limit = self.artefact.max_tokens - SPECIAL_TOKENS
        read = [place for place, (a, b) in enumerate(pairs) if len(pieces[a]) + len(pieces[b]) <= limit]
        result = np.full(len(pairs), -np.inf, np.float32)
        if read:
            result[read] = self._outputs([(pieces[pairs[place][0]], pieces[pairs[place][1]]) for place in read])
        return result

    def _outputs(self, pairs: Sequence[tuple[list[int], list[int]]]) -> NDArray[np.float32]:
        cls, sep = self._pieces.cls, self._pieces.sep
        both = list(chain.from_iterable(((one, other), (other, one)) for one, other in pairs))
        sequences = [[cls, *one, sep, *other, sep] for one, other in both]
        states = self._encoder.encode(sequences, [len(one) + 2 for one, _ in both])
        pooled = np.concatenate([states.mean(), states.first()], axis=1)
        outputs = (pooled @ self._head.T + self._bias).reshape(len(pairs), 2)
        mean: NDArray[np.float32] = outputs.mean(axis=1)
        return mean
