"""Matrix products in a graph, in float32 and in int8.

Every row is quantised by its own range. So a row's product does not depend on the other rows of the batch. ONNX
Runtime's own dynamic quantisation does not guarantee that, since it uses one range for the whole batch.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from safety.encoder.onnx_graph import CONTRIB, Graph
from safety.encoder.precision import Precision
from safety.encoder.quantised_matrix import MAX_WEIGHT, QuantisedMatrix, stacked

CENTRE = 128
"""The code of 0 in a quantised row of both signs."""

GELU_ZERO, GELU_MIN = 32, 0.17
"""The code of 0 in a quantised output of GELU, which is never below -0.17: few codes are spent on that side."""


class Tensors(Protocol):
    """The tensors of a model by name. ``weights.Weights`` implements it; its docstrings apply here too."""

    def dense(self, name: str) -> NDArray[np.float32]: ...
    def quantised(self, name: str, max_code: int) -> QuantisedMatrix: ...


class FloatLinears:
    """Products of float32 rows and weights, without bias."""

    def __init__(self, graph: Graph, tensors: Tensors) -> None:
        self._graph = graph
        self._tensors = tensors

    def rows(self, name: str, rows: str) -> tuple[str, ...]:
        """Prepares rows [T, inputs] as the left side of a product."""
        return (rows,)

    gelu_rows = rows

    def swiglu_rows(self, name: str, gate: str, up: str, rows: tuple[str, ...]) -> tuple[str, ...]:
        """Prepares ``silu(gate product) * up product`` of prepared rows."""
        graph = self._graph
        # With alpha 1 QuickGelu is SiLU.
        active = graph.node(
            "QuickGelu", [self.product(gate, [gate], rows)], f"{name}.active", domain=CONTRIB, alpha=1.0
        )
        return (graph.node("Mul", [active, self.product(up, [up], rows)], f"{name}.rows"),)

    def product(self, name: str, parts: list[str], rows: tuple[str, ...]) -> str:
        """Adds the product of prepared rows with the matrices ``parts``, one above the other."""
        matrix = np.concatenate([self._tensors.dense(f"{part}.weight") for part in parts])
        right = self._graph.constant(f"{name}.transposed", matrix.T)
        return self._graph.node("MatMul", [*rows, right], f"{name}.product")


class Int8Linears:
    """Products of rows in 8 bits and weights in 7, without bias. Sums are exact."""

    def __init__(self, graph: Graph, tensors: Tensors) -> None:
        self._graph = graph
        self._tensors = tensors
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

    def swiglu_rows(self, name: str, gate: str, up: str, rows: tuple[str, ...]) -> tuple[str, ...]:
        """Quantises ``silu(gate product) * up product`` of prepared rows, as ``rows`` does."""
        graph, (_, row_scale, _) = self._graph, rows
        active = graph.node(
            "QuickGelu", [self.product(gate, [gate], rows)], f"{name}.active", domain=CONTRIB, alpha=1.0
        )
        # The codes of a row do not change with its scale, which is multiplied last.
        wide = graph.node("Mul", [active, self._sums(up, [up], rows)], f"{name}.unscaled")
        codes, scale, zero = self.rows(name, wide)
        return codes, graph.node("Mul", [scale, row_scale], f"{name}.scale"), zero

    def product(self, name: str, parts: list[str], rows: tuple[str, ...]) -> str:
        """Adds the product of prepared rows with the matrices ``parts``, one above the other."""
        return self._graph.node("Mul", [self._sums(name, parts, rows), rows[1]], f"{name}.product")

    def _sums(self, name: str, parts: list[str], rows: tuple[str, ...]) -> str:
        """Adds the product without the scales of the prepared rows."""
        graph, (codes, _, zero) = self._graph, rows
        matrix = stacked([self._tensors.quantised(f"{part}.weight", MAX_WEIGHT) for part in parts])
        right = graph.constant(f"{name}.codes", matrix.codes.T)
        scales = graph.constant(f"{name}.scales", matrix.scale)
        one = graph.constant("one", np.float32(1))
        inputs = [codes, right, one, scales, zero]
        return graph.node("MatMulIntegerToFloat", inputs, f"{name}.sums", domain=CONTRIB)

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


Linears = FloatLinears | Int8Linears


def linears_of(precision: Precision, graph: Graph, tensors: Tensors) -> Linears:
    """Returns the products in ``precision``."""
    return Int8Linears(graph, tensors) if precision is Precision.INT8 else FloatLinears(graph, tensors)
