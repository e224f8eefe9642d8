"""``decoder_graph``: builds the graph of a decoder from its weights, when these are loaded.

All rows of a batch are computed without padding, except in attention, and quantised each by itself. So a sequence's
hidden states do not depend on the other sequences of the batch.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from safety.decoder.architecture import Architecture
from safety.encoder.linears import Linears, Tensors, linears_of
from safety.encoder.onnx_graph import CONTRIB, Graph
from safety.encoder.precision import Precision
from safety.encoder.token_embeddings import token_rows


def decoder_graph(graph: Graph, architecture: Architecture, tensors: Tensors, precision: Precision) -> None:
    """Adds the decoder to an empty graph. Its inputs are the fields of ``PackedBatch``; its output ``hidden`` is
    float32 [T, hidden], after the last norm."""
    linears = linears_of(precision, graph, tensors)
    _rotary_tables(graph, architecture)
    rows = token_rows(graph, tensors, "embed_tokens.weight", precision)
    for layer in range(architecture.layers):
        rows = _layer(graph, architecture, tensors, linears, f"layers.{layer}", rows)
    _norm(graph, architecture, tensors, "norm", rows, "hidden")


def _rotary_tables(graph: Graph, architecture: Architecture) -> None:
    """Adds ``cosines`` and ``sines``, float32 [max_tokens, head_size / 2], and what attention must know of a batch:
    ``last_places``, int32 [B], the place of each sequence's last token, and ``longest``, int32 [1]."""
    exponents = np.arange(0, architecture.head_size, 2, dtype=np.float64) / architecture.head_size
    angles = np.arange(architecture.max_tokens)[:, None] * architecture.rope_theta**-exponents
    graph.constant("cosines", np.cos(angles).astype(np.float32))
    graph.constant("sines", np.sin(angles).astype(np.float32))
    graph.node("Sub", ["lengths", graph.constant("one_token", np.int32(1))], "last_places")
    padded = graph.node("Shape", ["padded_rows"], "padded_shape", start=1, end=2)
    graph.node("Cast", [padded], "longest", to=TensorProto.INT32)


def _layer(graph: Graph, architecture: Architecture, tensors: Tensors, linears: Linears, prefix: str, rows: str) -> str:
    """Adds one layer. ``rows`` and the result are [T, hidden]."""
    normed = _norm(graph, architecture, tensors, f"{prefix}.input_layernorm", rows)
    mixed = _attention(graph, architecture, linears, f"{prefix}.self_attn", normed)
    attended = graph.node("Add", [rows, mixed], f"{prefix}.attended")
    normed = _norm(graph, architecture, tensors, f"{prefix}.post_attention_layernorm", attended)
    return graph.node("Add", [attended, _mlp(graph, linears, f"{prefix}.mlp", normed)], f"{prefix}.rows")


def _attention(graph: Graph, architecture: Architecture, linears: Linears, prefix: str, rows: str) -> str:
    """Adds causal attention with its products. ``rows`` and the result are [T, hidden]."""
    qkv, output = f"{prefix}.qkv", f"{prefix}.o_proj"
    packed = linears.product(qkv, [f"{prefix}.{name}_proj" for name in "qkv"], linears.rows(qkv, rows))
    padded = graph.node("Gather", [packed, "padded_rows"], f"{prefix}.padded")
    mixed = graph.nodes_of(
        "GroupQueryAttention",
        [padded, "", "", "", "", "last_places", "longest", "cosines", "sines"],
        [f"{prefix}.mixed", f"{prefix}.keys", f"{prefix}.values"],
        domain=CONTRIB,
        num_heads=architecture.heads,
        kv_num_heads=architecture.kv_heads,
        do_rotary=1,
    )[0]
    shape = graph.constant("packed_shape", np.array([-1, architecture.hidden], np.int64))
    flat = graph.node("Reshape", [mixed, shape], f"{prefix}.flat")
    unpadded = graph.node("Gather", [flat, "packed_places"], f"{prefix}.packed")
    return linears.product(output, [output], linears.rows(output, unpadded))


def _mlp(graph: Graph, linears: Linears, prefix: str, rows: str) -> str:
    """Adds ``down(silu(gate(rows)) * up(rows))``. ``rows`` and the result are [T, hidden]."""
    down = f"{prefix}.down_proj"
    prepared = linears.rows(f"{prefix}.gate_up", rows)
    return linears.product(
        down, [down], linears.swiglu_rows(down, f"{prefix}.gate_proj", f"{prefix}.up_proj", prepared)
    )


def _norm(
    graph: Graph, architecture: Architecture, tensors: Tensors, name: str, rows: str, output: str | None = None
) -> str:
    """Adds ``RMSNorm(rows)``."""
    inputs = [rows, graph.constant(f"{name}.weight", tensors.dense(f"{name}.weight"))]
    epsilon = architecture.norm_epsilon
    return graph.node("SimplifiedLayerNormalization", inputs, output or f"{name}.rows", axis=-1, epsilon=epsilon)
