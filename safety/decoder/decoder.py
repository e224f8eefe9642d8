"""``Decoder``: runs a decoder on one thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from safety.decoder.architecture import Architecture, UnsupportedDecoderError
from safety.decoder.checked_tensors import CheckedTensors
from safety.decoder.gguf_file import GGUFFile
from safety.decoder.graph import decoder_graph
from safety.decoder.tuned_tensors import TunedTensors
from safety.encoder.architecture import UnsupportedEncoderError
from safety.encoder.hidden_states import HiddenStates
from safety.encoder.linears import Tensors
from safety.encoder.onnx_graph import Graph
from safety.encoder.packed_batch import packed
from safety.encoder.precision import Precision
from safety.encoder.weights import Weights


class Decoder:
    """A loaded decoder. ``encode`` computes on the calling thread only, and releases Python's lock meanwhile."""

    def __init__(self, architecture: Architecture, tensors: Tensors, precision: Precision = Precision.INT8) -> None:
        """Takes one matrix of ``tensors`` at a time, and keeps none. Raises UnsupportedDecoderError if they do not fit
        ``architecture``, and OSError if there is no room for temporary files as large as the model."""
        self.architecture = architecture
        with TemporaryDirectory() as folder:
            graph = Graph(Path(folder))
            decoder_graph(graph, architecture, CheckedTensors(architecture, tensors), precision)
            self._session = graph.session(architecture.hidden)

    @classmethod
    def load(
        cls, file: GGUFFile, layers: int, tuned: Path | None = None, precision: Precision = Precision.INT8
    ) -> Decoder:
        """Loads the first ``layers`` layers of ``file`` and its last norm. ``tuned``: a safetensors file with tensors
        that take the place of these, by the names of Hugging Face's ``LlamaModel``, float32 or int8.

        Raises OSError, and UnsupportedDecoderError for files that do not fit.
        """
        whole = file.architecture()
        if layers > whole.layers:
            raise UnsupportedDecoderError(f"the file has {whole.layers} layers, not {layers}")
        architecture = replace(whole, layers=layers)
        if tuned is None:
            return cls(architecture, file, precision)
        try:
            weights = Weights.read(tuned)
        except UnsupportedEncoderError as error:
            raise UnsupportedDecoderError(str(error)) from error
        return cls(architecture, TunedTensors(architecture, file, weights), precision)

    def encode(self, sequences: Sequence[Sequence[int]]) -> HiddenStates:
        """Returns the hidden states of sequences of token ids, in order, after the last norm. They do not depend on the
        batch.

        Raises ValueError if there is no sequence, for an empty sequence, for one longer than
        ``architecture.max_tokens``, and for ids outside the vocabulary.
        """
        batch = packed(sequences)
        batch.check(self.architecture.max_tokens, self.architecture.vocabulary)
        (rows,) = self._session.run(["hidden"], batch.inputs())
        return HiddenStates(rows, batch.starts, batch.lengths)
