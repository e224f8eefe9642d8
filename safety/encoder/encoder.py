"""``Encoder``: runs a BERT encoder on one thread."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from safety.encoder.architecture import Architecture, UnsupportedEncoderError
from safety.encoder.graph import encoder_graph
from safety.encoder.hidden_states import HiddenStates
from safety.encoder.onnx_graph import Graph
from safety.encoder.packed_batch import packed
from safety.encoder.precision import Precision
from safety.encoder.weights import Weights


class Encoder:
    """A loaded encoder. ``encode`` computes on the calling thread only, and releases Python's lock meanwhile."""

    def __init__(
        self, architecture: Architecture, weights: Weights, precision: Precision = Precision.INT8, token_types: int = 1
    ) -> None:
        """``token_types``: how many the sequences have; ``encode`` takes ``second`` where there are two.

        Raises UnsupportedEncoderError if ``weights`` do not fit ``architecture``, and OSError if there is no room for
        temporary files as large as the model.
        """
        self.architecture = architecture
        self._token_types = token_types
        with TemporaryDirectory() as folder:
            graph = Graph(Path(folder))
            encoder_graph(graph, architecture, weights, precision, token_types)
            self._session = graph.session(architecture.hidden)

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
        batch.check(self.architecture.max_tokens, self.architecture.vocabulary)
        positions = batch.positions
        if second is not None:
            if self._token_types < 2:
                raise ValueError("the encoder was loaded for one token type")
            # A table of positions for each type, one below the other.
            positions = positions + self.architecture.max_tokens * batch.from_place(second)
        inputs = batch.inputs() | {"positions": positions}
        (rows,) = self._session.run(["hidden"], inputs)
        return HiddenStates(rows, batch.starts, batch.lengths)
