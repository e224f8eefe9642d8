"""``SentenceEncoder``: a BERT encoder with pooling. It makes vectors of token ids, on one thread."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cluster.embedder.sentence_model_files import SentenceArtefact
from cluster.embedder.sentence_settings import Pooling
from safety.encoder.encoder import Encoder
from safety.encoder.precision import Precision
from safety.encoder.word_pieces import WordPieces


class SentenceEncoder:
    """A loaded model. ``tokens`` may be called on any thread, ``vectors`` on one thread at a time."""

    def __init__(self, artefact: SentenceArtefact, precision: Precision) -> None:
        """Loads the vocabulary, ``config.json`` and ``model.safetensors``.

        Raises OSError for a missing file, and UnsupportedEncoderError for files that do not fit.
        """
        self.artefact = artefact
        self._pieces = WordPieces(artefact.vocabulary)
        self._encoder = Encoder.load(artefact.directory, precision)

    def tokens(self, text: str) -> list[int]:
        """Returns the token ids of a text, ``[CLS]`` and ``[SEP]`` included. The text is not cut."""
        return [self._pieces.cls, *self._pieces(text), self._pieces.sep]

    def vectors(self, batch: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Returns the vectors of texts, float32 [batch, dimensions], each of length 1. ``batch`` has the token ids of
        each text. Raises ValueError for an empty batch, and for a text that is empty or has more tokens than the model
        takes."""
        states = self._encoder.encode(batch)
        pooled = states.mean() if self.artefact.settings.pooling is Pooling.MEAN else states.first()
        vectors: NDArray[np.float32] = pooled / np.linalg.norm(pooled, axis=1, keepdims=True).clip(1e-12)
        return vectors
