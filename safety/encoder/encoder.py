"""``Encoder``: runs a BERT encoder on one thread."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from safety.encoder.architecture import Architecture, UnsupportedEncoderError
from safety.encoder.graph import encoder_graph
from safety.encoder.packed_batch import packed
from safety.encoder.precision import Precision
from safety.encoder.weights import Weights

WARNINGS_OFF = 3  # of ONNX Runtime's log levels


@dataclass(frozen=True, slots=True)
class HiddenStates:
    """The last hidden states of B sequences, which have T tokens in all.

    ``rows``: float32 [T, hidden], without padding. ``starts`` and ``lengths``: [B], the first row and the number of
    rows of each sequence.
    """

    rows: NDArray[np.float32]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int32]

    def first(self) -> NDArray[np.float32]:
        """Returns the state of each sequence's first token, float32 [B, hidden]."""
        return self.rows[self.starts]

    def mean(self) -> NDArray[np.float32]:
        """Returns the mean over each sequence's tokens, float32 [B, hidden]."""
        sums: NDArray[np.float32] = np.add.reduceat(self.rows, self.starts, axis=0)
        means: NDArray[np.float32] = (sums / self.lengths[:, None]).astype(np.float32)
        return means


class Encoder:
    """A loaded encoder. ``encode`` computes on the calling thread only, and releases Python's lock meanwhile."""

    def __init__(
        self, architecture: Architecture, weights: Weights, precision: Precision = Precision.INT8, token_types: int = 1
    ) -> None:
        """``token_types``: how many the sequences have; ``encode`` takes ``second`` where there are two.

        Raises UnsupportedEncoderError if ``weights`` do not fit ``architecture``.
        """
        self.architecture = architecture
        self._token_types = token_types
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = WARNINGS_OFF
        options.enable_mem_pattern = False  # plans memory for each shape, and every batch has another
        model = encoder_graph(architecture, weights, precision, token_types).SerializeToString()
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    @classmethod
    def load(cls, directory: Path, precision: Precision = Precision.INT8) -> Encoder:
        """Loads ``config.json`` and ``model.safetensors`` of a Hugging Face directory.

        Raises OSError for a missing file, and UnsupportedEncoderError for files of another kind of model.
        """
        try:
            config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        except ValueError as error:
            raise UnsupportedEncoderError(f"{directory / 'config.json'} is no JSON: {error}") from error
        weights = Weights.read(directory / "model.safetensors")
        return cls(Architecture.from_hugging_face(config), weights, precision)

    def encode(self, sequences: Sequence[Sequence[int]], second: Sequence[int] | None = None) -> HiddenStates:
        """Returns the hidden states of sequences of token ids, in order. They do not depend on the batch.

        ``second`` has, for each sequence, the index of its first token of type 1; the tokens from there to the end have
        type 1. None: all tokens have type 0. Raises ValueError if there is no sequence, for an empty sequence, for one
        longer than ``architecture.max_tokens``, for ids outside the vocabulary, and for token types that the encoder
        was not loaded with.
        """
        batch = packed(sequences)
        if batch.lengths.max() > self.architecture.max_tokens:
            raise ValueError(f"a sequence has {batch.lengths.max()} tokens, of at most {self.architecture.max_tokens}")
        if batch.token_ids.min() < 0 or batch.token_ids.max() >= self.architecture.vocabulary:
            raise ValueError(f"token ids are from 0 to {self.architecture.vocabulary - 1}")
        positions = batch.positions
        if second is not None:
            if self._token_types < 2:
                raise ValueError("the encoder was loaded for one token type")
            # A table of positions for each type, one below the other.
            positions = positions + self.architecture.max_tokens * batch.from_place(second)
        inputs = {
            "token_ids": batch.token_ids,
            "positions": positions,
            "lengths": batch.lengths,
            "padded_rows": batch.padded_rows,
            "packed_places": batch.packed_places,
        }
        (rows,) = self._session.run(["hidden"], inputs)
        return HiddenStates(rows, batch.starts, batch.lengths)
