"""``SecondModel``: the files of the second opinion, as the service runs them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from deployments.models.training.safety.second.sequences import Sequences
from safety.decoder.decoder import Decoder
from safety.decoder.gguf_file import GGUFFile
from safety.encoder.weights import Weights


class SecondModel:
    """``layers`` layers of ``base``, a GGUF file, with the tensors and the head in ``tuned``."""

    def __init__(self, base: Path, tuned: Path, layers: int) -> None:
        """Raises OSError, and UnsupportedDecoderError for files that do not fit."""
        file = GGUFFile(base)
        weights = Weights.read(tuned)
        self.sequences = Sequences(file)
        self._decoder = Decoder.load(file, layers, tuned)
        self._head = torch.from_numpy(np.array(weights.dense("head.weight")))
        self._bias = torch.from_numpy(np.array(weights.dense("head.bias")))

    def logits(self, spans: Sequence[str], most: int) -> Tensor:
        """Returns the logits of spans of texts, float32 [spans, labels], each cut to ``most`` tokens."""
        batch = [self.sequences.of(span, most) for span in spans]
        states = self._decoder.encode(batch)
        ahead = len(self.sequences.prefix)
        # A span without tokens has the state of its end for a mean.
        parts = [(ahead, max(ahead + 1, len(each) - 1)) for each in batch]
        pooled = np.concatenate([states.mean_within(parts), states.last()], axis=1)
        return torch.from_numpy(pooled) @ self._head.T + self._bias
