"""Triton's interpreter, with products whose bits do not depend on the processor, and in two thirds of its time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

FLOATS = (np.float16, np.float32)
"""What numpy knows as floating-point numbers; it sees codes in the others."""


@pytest.fixture(scope="package", autouse=True)
def row_independent_products() -> Iterator[None]:
    """Lets the interpreter compute ``tl.dot`` in float64 and round once.

    Its own products are numpy's. Without AVX-512, numpy's BLAS adds up a row of a small float32 matrix in an order that
    depends on the number of rows, so a row would not have the same bits alone and among others, as it has on a card.
    In float64 the order changes what float32 cannot show."""
    if torch.cuda.is_available():
        yield
        return
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle  # untyped, and of no use on a card

    own = InterpreterBuilder.create_dot

    def create_dot(self: Any, a: Any, b: Any, d: Any, *precision: Any) -> Any:
        if d.data.dtype != np.float32 or a.data.dtype not in FLOATS or b.data.dtype not in FLOATS:
            return own(self, a, b, d, *precision)
        product = np.matmul(a.data, b.data, dtype=np.float64) + d.data
        return TensorHandle(product.astype(np.float32), d.dtype.scalar)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InterpreterBuilder, "create_dot", create_dot)
        yield


@pytest.fixture(scope="package", autouse=True)
def quicker_interpreter() -> Iterator[None]:
    """The interpreter does not search at every call for what it has found already."""
    if torch.cuda.is_available():
        yield
        return
    from load_tests.gpu.interpreter import quick_interpreter  # of no use on a card

    with quick_interpreter():
        yield
