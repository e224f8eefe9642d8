"""``token_rows``: the embeddings of a batch's tokens."""

from __future__ import annotations

from onnx import TensorProto

from safety.encoder.linears import Tensors
from safety.encoder.onnx_graph import Graph
from safety.encoder.precision import Precision
from safety.encoder.quantised_matrix import MAX_EMBEDDING


def token_rows(graph: Graph, tensors: Tensors, name: str, precision: Precision) -> str:
    """Adds the rows of the table ``name`` for the input ``token_ids``, float32 [T, hidden]. In int8 the table is
    quantised by row."""
    if precision is Precision.FLOAT32:
        return graph.node("Gather", [graph.constant("words", tensors.dense(name)), "token_ids"], "word_rows")
    matrix = tensors.quantised(name, MAX_EMBEDDING)
    codes = graph.node("Gather", [graph.constant("words", matrix.codes), "token_ids"], "word_codes")
    scale = graph.node("Gather", [graph.constant("word_scales", matrix.scale[:, None]), "token_ids"], "word_scale")
    as_float = graph.node("Cast", [codes], "word_floats", to=TensorProto.FLOAT)
    return graph.node("Mul", [as_float, scale], "word_rows")
