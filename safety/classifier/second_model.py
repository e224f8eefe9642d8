"""``SecondModel``: a decoder and its head, for a second opinion on windows of a text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from safety.classifier.artefact import Artefact, ArtefactError, SecondOpinion
from safety.classifier.legible_text import legible_text
from safety.decoder.architecture import Architecture
from safety.decoder.byte_pairs import BytePairs
from safety.decoder.decoder import Decoder
from safety.decoder.gguf_file import GGUFFile
from safety.encoder.precision import Precision
from safety.encoder.weights import Weights

CHARACTERS_PER_TOKEN = 32
"""The characters of a window that are read, for each token that it may have: a word of any length is one piece."""


class SecondModel:
    """A loaded second opinion. ``sequence`` makes the token ids of a window's text, ``logits`` returns the output of
    the head for each sequence. ``sequence`` may be called on any thread, ``logits`` on one at a time."""

    def __init__(self, directory: Path, artefact: Artefact, base: Path, precision: Precision = Precision.INT8) -> None:
        """Loads the GGUF file ``base``, and the tuned tensors and the head from ``directory``. ``artefact`` must
        describe a second opinion.

        Raises OSError for a missing file, and ArtefactError, UnsupportedEncoderError or UnsupportedDecoderError for
        files that do not fit.
        """
        second = artefact.second_opinion
        if second is None:
            raise ArtefactError(f"{directory / 'config.json'} has no second_opinion")
        file = GGUFFile(base)
        self._second = second
        self._text = BytePairs(file.metadata)
        self._head, self._bias = _head(directory / second.file, len(artefact.labels), second, file.architecture())
        self._decoder = Decoder.load(file, second.layers, directory / second.file, precision)

    def sequence(self, text: str) -> list[int]:
        """Returns the token ids of the text of a window, between those that begin and end a turn."""
        tokens = self._text(legible_text(text)[: CHARACTERS_PER_TOKEN * self._second.max_tokens])
        return [*self._second.prefix, *tokens[: self._second.max_tokens], self._second.end]

    def logits(self, batch: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Returns the head's outputs for sequences, float32 [sequences, labels]. Its inputs are the mean of the states
        of the text, or of the last token where there is none, and the state of the last token."""
        states = self._decoder.encode(batch)
        first = len(self._second.prefix)
        parts = [(first, max(len(each) - 1, first + 1)) for each in batch]
        pooled = np.concatenate([states.mean_within(parts), states.last()], axis=1)
        outputs: NDArray[np.float32] = pooled @ self._head.T + self._bias
        return outputs


def _head(
    path: Path, labels: int, second: SecondOpinion, architecture: Architecture
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Returns the weight and the bias of the head in ``path``. Raises ArtefactError if they do not fit, if the file
    lacks a tensor, or if sequences do not fit the decoder."""
    tuned = Weights.read(path)
    for name in _tuned_names(second, architecture):
        if name not in tuned:
            raise ArtefactError(f"{path} has no tensor {name}")
    head, bias = tuned.dense("head.weight"), tuned.dense("head.bias")
    shape = (labels, 2 * architecture.hidden)
    if head.shape != shape or bias.shape != shape[:1]:
        raise ArtefactError(f"{path}: head.weight must be {list(shape)}, not {list(head.shape)}")
    if max((*second.prefix, second.end)) >= architecture.vocabulary:
        raise ArtefactError(f"second_opinion: token ids are below {architecture.vocabulary}")
    if len(second.prefix) + second.max_tokens + 1 > architecture.max_tokens:
        raise ArtefactError("second_opinion.max_tokens: with prefix and end, a sequence is too long for the decoder")
    return head.copy(), bias.copy()  # copies, so that the file's memory is freed


def _tuned_names(second: SecondOpinion, architecture: Architecture) -> Iterator[str]:
    """Yields the names of the decoder's tensors that the tuned file must have."""
    layers = {f"layers.{layer}" for layer in range(second.tuned_from, second.layers)}
    for name, _ in architecture.shapes():
        if name == "norm.weight" or ".".join(name.split(".")[:2]) in layers:
            yield name
