"""``WindowClassifier``: the encoder and its head. It scores windows of token ids on one thread."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from safety.classifier.artefact import ArtefactError, read_artefact
from safety.classifier.emoji import without_emoji
from safety.classifier.scoring import probabilities
from safety.classifier.windows import Span, spans, windows
from safety.encoder.encoder import Encoder
from safety.encoder.precision import Precision
from safety.encoder.weights import Weights
from safety.encoder.word_pieces import WordPieces


class WindowClassifier:
    """A loaded text classifier. ``windows`` cuts a text into windows of token ids, ``logits`` returns the output of the
    head for each window, and ``score`` the probabilities. ``windows`` and ``spans`` may be called on any thread, the
    others on one at a time."""

    def __init__(self, directory: Path, precision: Precision = Precision.INT8) -> None:
        """Loads ``config.json``, ``vocab.txt`` and ``model.safetensors``.

        Raises OSError for a missing file, and ArtefactError or UnsupportedEncoderError for files that do not fit.
        """
        self.artefact = read_artefact(directory)
        self._pieces = WordPieces(directory / "vocab.txt")
        weights = Weights.read(directory / "model.safetensors")
        self._head = weights.dense("head.weight").copy()  # a copy, so that the file's memory is freed
        self._bias = weights.dense("head.bias").copy()
        shape = (len(self.artefact.labels), 2 * self.artefact.architecture.hidden)
        if self._head.shape != shape or self._bias.shape != shape[:1]:
            raise ArtefactError(f"head.weight must be {list(shape)}, not {list(self._head.shape)}")
        self._encoder = Encoder(self.artefact.architecture, weights, precision)

    def windows(self, text: str) -> list[list[int]]:
        """Returns the windows of a text as token ids, ``[CLS]`` and ``[SEP]`` included."""
        cls, sep = self._pieces.cls, self._pieces.sep
        return [[cls, *window, sep] for window in windows(self._pieces(without_emoji(text)), self.artefact.window)]

    def spans(self, text: str) -> list[Span]:
        """Returns the part of a text that each of its ``windows`` is cut from."""
        return spans(self._pieces.offsets(without_emoji(text)), len(text), self.artefact.window)

    def logits(self, batch: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Returns the head's outputs for windows of token ids, float32 [windows, labels]."""
        states = self._encoder.encode(batch)
        pooled = np.concatenate([states.mean(), states.first()], axis=1)
        outputs: NDArray[np.float32] = pooled @ self._head.T + self._bias
        return outputs

    def score(self, batch: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        """Returns the calibrated probabilities of windows of token ids, float64 [windows, labels], without a second
        opinion."""
        return probabilities(self.logits(batch), self.artefact)
