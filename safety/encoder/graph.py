"""``encoder_graph``: builds the ONNX model of an encoder from its weights, when these are loaded.

All rows of a batch are computed without padding, except in attention. Every row is quantised by its own range. So a
sequence's hidden states do not depend on the other sequences of the batch. ONNX Runtime's own dynamic quantisation does
not guarantee that, since it uses one range for the whole batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from safety.encoder.architecture import Architecture, UnsupportedEncoderError
from safety.encoder.precision import Precision
from safety.encoder.quantised_matrix import MAX_EMBEDDING, MAX_WEIGHT, QuantisedMatrix
from safety.encoder.weights import Weights

CONTRIB = "com.microsoft"
"""The domain of ONNX Runtime's own operators: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md"""

OPSET, IR_VERSION = 18, 9

CENTRE = 128
"""The code of 0 in a quantised row of both signs."""

GELU_ZERO, GELU_MIN = 32, 0.17
"""The code of 0 in a quantised output of GELU, which is never below -0.17: few codes are spent on that side."""


class Graph:
    """Collects the nodes and the constants of an ONNX graph. Tensors are referred to by name."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, TensorProto] = {}

    def constant(self, name: str, value: NDArray[Any] | np.generic) -> str:
        """Adds a constant, unless there is one with this name. Returns the name."""
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name)
        return name

    def node(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Adds a node with one output. Returns the name of the output."""
        return self.nodes_of(operator, inputs, [output], **attributes)[0]

    def nodes_of(
        self, operator: str, inputs: list[str], outputs: list[str], domain: str = "", **attributes: Any
    ) -> list[str]:
        """Adds a node with several outputs. Returns their names."""
        self.nodes.append(helper.make_node(operator, inputs, outputs, domain=domain, **attributes))
        return outputs


def encoder_graph(
    architecture: Architecture, weights: Weights, precision: Precision, token_types: int = 1
) -> ModelProto:
    """Returns the ONNX model. Its inputs are the fields of ``PackedBatch``; its output ``hidden`` is float32 [T,
    hidden].

    Token types are encoded in the positions: that of a token of type t is t x max_tokens higher. So a type costs a
    larger table and no operation. Raises UnsupportedEncoderError if tensors are missing or have other shapes.
    """
    weights.check(architecture)
    graph = Graph()
    linears = _Int8Linears(graph, weights) if precision is Precision.INT8 else _FloatLinears(graph, weights)
    rows = _embeddings(graph, architecture, weights, precision, token_types)
    for layer in range(architecture.layers):
        output = "hidden" if layer == architecture.layers - 1 else f"layer{layer}"
        rows = _layer(graph, architecture, weights, linears, f"encoder.layer.{layer}", rows, output)
    return _model(graph, architecture)


def _model(graph: Graph, architecture: Architecture) -> ModelProto:
    info = helper.make_tensor_value_info
    inputs = [
        info("token_ids", TensorProto.INT64, ["T"]),
        info("positions", TensorProto.INT64, ["T"]),
        info("lengths", TensorProto.INT32, ["B"]),
        info("padded_rows", TensorProto.INT64, ["B", "S"]),
        info("packed_places", TensorProto.INT64, ["T"]),
    ]
    outputs = [info("hidden", TensorProto.FLOAT, ["T", architecture.hidden])]
    return helper.make_model(
        helper.make_graph(graph.nodes, "encoder", inputs, outputs, list(graph.constants.values())),
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB, 1)],
        ir_version=IR_VERSION,
    )


def _embeddings(
    graph: Graph, architecture: Architecture, weights: Weights, precision: Precision, token_types: int
) -> str:
    words = "embeddings.word_embeddings.weight"
    if precision is Precision.INT8:
        matrix = weights.quantised(words, MAX_EMBEDDING)
        codes = graph.node("Gather", [graph.constant("words", matrix.codes), "token_ids"], "word_codes")
        scale = graph.node("Gather", [graph.constant("word_scales", matrix.scale[:, None]), "token_ids"], "word_scale")
        as_float = graph.node("Cast", [codes], "word_floats", to=TensorProto.FLOAT)
        word = graph.node("Mul", [as_float, scale], "word_rows")
    else:
        word = graph.node("Gather", [graph.constant("words", weights.dense(words)), "token_ids"], "word_rows")
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
    linears: _Linears,
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
    graph: Graph, architecture: Architecture, weights: Weights, linears: _Linears, prefix: str, rows: str
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


class _FloatLinears:
    """Products of float32 rows and weights, without bias."""

    def __init__(self, graph: Graph, weights: Weights) -> None:
        self._graph = graph
        self._weights = weights

    def rows(self, name: str, rows: str) -> tuple[str, ...]:
        """Prepares rows [T, inputs] as the left side of a product."""
        return (rows,)

    gelu_rows = rows

    def product(self, name: str, parts: list[str], rows: tuple[str, ...]) -> str:
        """Adds the product of prepared rows with the matrices ``parts``, one above the other."""
        matrix = np.concatenate([self._weights.dense(f"{part}.weight") for part in parts])
        right = self._graph.constant(f"{name}.transposed", matrix.T)
        return self._graph.node("MatMul", [*rows, right], f"{name}.product")


class _Int8Linears:
    """Products of rows in 8 bits and weights in 7, without bias. Sums are exact."""

    def __init__(self, graph: Graph, weights: Weights) -> None:
        self._graph = graph
        self._weights = weights
        self._shared: set[str] = set()  # the tensors of zeros that are there

    def rows(self, name: str, rows: str) -> tuple[str, ...]:
        """Quantises rows of both signs, [T, inputs], each by its largest absolute value."""
        graph = self._graph
        axis = graph.constant("columns", np.array([1], np.int64))
        highest = graph.node("ReduceMax", [rows, axis], f"{name}.highest")
        lowest = graph.node("ReduceMin", [rows, axis], f"{name}.lowest")
        opposite = graph.node("Neg", [lowest], f"{name}.opposite")
        smallest = graph.constant("smallest", np.float32(1e-12))  # of a row of zeros
        largest = graph.node("Max", [highest, opposite, smallest], f"{name}.largest")
        step = graph.constant("signed_step", np.float32(1 / (CENTRE - 1)))
        scale = graph.node("Mul", [largest, step], f"{name}.row_scale")
        return self._codes(name, rows, scale, CENTRE)

    def gelu_rows(self, name: str, rows: str) -> tuple[str, ...]:
        """Quantises rows that GELU has put out, [T, inputs], each by its largest value."""
        graph = self._graph
        axis = graph.constant("columns", np.array([1], np.int64))
        highest = graph.node("ReduceMax", [rows, axis], f"{name}.highest")
        step = graph.constant("gelu_step", np.float32(1 / (255 - GELU_ZERO)))
        smallest = graph.constant("gelu_smallest", np.float32(GELU_MIN / GELU_ZERO))
        scale = graph.node("Max", [graph.node("Mul", [highest, step], f"{name}.span"), smallest], f"{name}.row_scale")
        return self._codes(name, rows, scale, GELU_ZERO)

    def product(self, name: str, parts: list[str], rows: tuple[str, ...]) -> str:
        """Adds the product of prepared rows with the matrices ``parts``, one above the other."""
        graph, (codes, row_scale, zero) = self._graph, rows
        matrices = [self._weights.quantised(f"{part}.weight", MAX_WEIGHT) for part in parts]
        matrix = QuantisedMatrix(
            np.concatenate([each.codes for each in matrices]), np.concatenate([each.scale for each in matrices])
        )
        right = graph.constant(f"{name}.codes", matrix.codes.T)
        scales = graph.constant(f"{name}.scales", matrix.scale)
        one = graph.constant("one", np.float32(1))
        inputs = [codes, right, one, scales, zero]
        sums = graph.node("MatMulIntegerToFloat", inputs, f"{name}.sums", domain=CONTRIB)
        return graph.node("Mul", [sums, row_scale], f"{name}.product")

    def _codes(self, name: str, rows: str, scale: str, zero: int) -> tuple[str, ...]:
        """Adds the quantisation of rows. ``scale`` is [T, 1]. Returns codes, scales and the code of 0."""
        graph = self._graph
        flat = graph.node("Reshape", [scale, graph.constant("flat_shape", np.array([-1], np.int64))], f"{name}.flat")
        codes = graph.node("QuantizeLinear", [rows, flat, self._zeros(zero)], f"{name}.codes_of_rows", axis=0)
        return codes, scale, graph.constant(f"zero{zero}", np.uint8(zero))

    def _zeros(self, zero: int) -> str:
        """Returns the code of 0 for each row of the batch, uint8 [T], which all products share."""
        name = f"zeros{zero}"
        if name not in self._shared:
            self._shared.add(name)
            shape = self._graph.node("Shape", ["token_ids"], f"{name}.count")
            value = helper.make_tensor("value", TensorProto.UINT8, [1], [zero])
            self._graph.node("ConstantOfShape", [shape], name, value=value)
        return name


_Linears = _FloatLinears | _Int8Linears
