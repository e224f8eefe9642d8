"""``encoder_graph``: builds the graph of an encoder from its weights, when these are loaded.

All rows of a batch are computed without padding, except in attention, and quantised each by itself. So a sequence's
hidden states do not depend on the other sequences of the batch.
"""

from __future__ import annotations

import numpy as np

from safety.encoder.architecture import Architecture, UnsupportedEncoderError
from safety.encoder.linears import Linears, linears_of
from safety.encoder.onnx_graph import CONTRIB, Graph
from safety.encoder.precision import Precision
from safety.encoder.token_embeddings import token_rows
from safety.encoder.weights import Weights


def encoder_graph(
    graph: Graph, architecture: Architecture, weights: Weights, precision: Precision, token_types: int = 1
) -> None:
    """Adds the encoder to an empty graph. Its inputs are the fields of ``PackedBatch``; its output ``hidden`` is
    float32 [T, hidden].

    Token types are encoded in the positions: that of a token of type t is t x max_tokens higher. So a type costs a
    larger table and no operation. Raises UnsupportedEncoderError if tensors are missing or have other shapes.
    """
    weights.check(architecture)
    linears = linears_of(precision, graph, weights)
    rows = _embeddings(graph, architecture, weights, precision, token_types)
    for layer in range(architecture.layers):
        output = "hidden" if layer == architecture.layers - 1 else f"layer{layer}"
        rows = _layer(graph, architecture, weights, linears, f"encoder.layer.{layer}", rows, output)


def _embeddings(
    graph: Graph, architecture: Architecture, weights: Weights, precision: Precision, token_types: int
) -> str:
    word = token_rows(graph, weights, "embeddings.word_embeddings.weight", precision)
    table = weights.dense("embeddings.position_embeddings.weight")
    kinds = weights.dense("embeddings.token_type_embeddings.weight")
    if len(kinds) < token_types:
        raise UnsupportedEncoderError(f"the file has {len(kinds)} token types, not {token_types}")
    # The row of a type is part of every position's.
    table = np.concatenate([table + kinds[kind] for kind in range(token_types)])
    position = graph.node("Gather", [graph.constant("position_table", table), "positions"], "position_rows")
    return _norm(graph, architecture, weights, "embeddings.LayerNorm", word, position, None, "embedded")


def _layer(
    graph: Graph,
    architecture: Architecture,
    weights: Weights,
    linears: Linears,
    prefix: str,
    rows: str,
    output: str,
) -> str:
    """Adds one layer. ``rows`` and the result are [T, hidden]."""
    attention = f"{prefix}.attention"
    mixed = _attention(graph, architecture, weights, linears, attention, rows)
    dense = f"{attention}.output.dense"
    projected = linears.product(dense, [dense], linears.rows(dense, mixed))
    bias = graph.constant(f"{dense}.bias", weights.dense(f"{dense}.bias"))
    attended = _norm(graph, architecture, weights, f"{attention}.output.LayerNorm", projected, rows, bias)
    wide = f"{prefix}.intermediate.dense"
    bias = graph.constant(f"{wide}.bias", weights.dense(f"{wide}.bias"))
    widened = linears.product(wide, [wide], linears.rows(wide, attended))
    active = graph.node("BiasGelu", [widened, bias], f"{wide}.active", domain=CONTRIB)
    narrow = f"{prefix}.output.dense"
    bias = graph.constant(f"{narrow}.bias", weights.dense(f"{narrow}.bias"))
    result = linears.product(narrow, [narrow], linears.gelu_rows(narrow, active))
    return _norm(graph, architecture, weights, f"{prefix}.output.LayerNorm", result, attended, bias, output)


def _attention(
    graph: Graph, architecture: Architecture, weights: Weights, linears: Linears, prefix: str, rows: str
) -> str:
    """Adds the attention of a layer without its output product. ``rows`` and the result are [T, hidden]."""
    names = [f"{prefix}.self.{name}" for name in ("query", "key", "value")]
    packed = linears.product(f"{prefix}.qkv", names, linears.rows(f"{prefix}.qkv", rows))
    padded = graph.node("Gather", [packed, "padded_rows"], f"{prefix}.padded")  # [B, S, 3 x hidden]
    parts = [f"{name}.rows" for name in names]
    graph.nodes_of("Split", [padded], parts, axis=-1, num_outputs=3)
    bias = np.concatenate([weights.dense(f"{name}.bias") for name in names])
    mixed = graph.nodes_of(
        "MultiHeadAttention",
        [*parts, graph.constant(f"{prefix}.qkv.bias", bias), "lengths"],
        [f"{prefix}.mixed"],
        domain=CONTRIB,
        num_heads=architecture.heads,
    )[0]
    shape = graph.constant("packed_shape", np.array([-1, architecture.hidden], np.int64))
    flat = graph.node("Reshape", [mixed, shape], f"{prefix}.flat")
    return graph.node("Gather", [flat, "packed_places"], f"{prefix}.packed")


def _norm(
    graph: Graph,
    architecture: Architecture,
    weights: Weights,
    name: str,
    rows: str,
    residual: str,
    bias: str | None,
    output: str | None = None,
) -> str:
    """Adds ``LayerNorm(rows + bias + residual)``, of standard operators: with SkipLayerNormalization the whole encoder
    takes a tenth longer."""
    parameters = [graph.constant(f"{name}.{part}", weights.dense(f"{name}.{part}")) for part in ("weight", "bias")]
    if bias is not None:
        rows = graph.node("Add", [rows, bias], f"{name}.biased")
    summed = graph.node("Add", [rows, residual], f"{name}.sum")
    inputs, epsilon = [summed, *parameters], architecture.norm_epsilon
    return graph.node("LayerNormalization", inputs, output or f"{name}.rows", axis=-1, epsilon=epsilon)
