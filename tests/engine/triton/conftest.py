"""Triton's interpreter, with products whose bits do not depend on the processor, and in two thirds of its time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
def functions_replaced_once() -> Iterator[None]:
    """Lets the interpreter replace the functions of ``triton.language`` by its own once for a launch.

    By itself it looks for those to replace at every call of a function of ours within a kernel, where it finds none:
    a launch has replaced them and puts them back at its end. The search is half of the time of most tests here."""
    if torch.cuda.is_available():
        yield
        return
    import triton.language as tl
    from triton.runtime import interpreter

    own: Callable[[Any], Any] = interpreter._patch_lang

    def patch_lang(function: Any) -> Any:
        modules = [each for each in (tl, tl.core) if any(each is known for known in function.__globals__.values())]
        replaced = (tl.tensor.to, *(module.load for module in modules))
        return interpreter._LangPatchScope() if not any(map(tl.core.is_builtin, replaced)) else own(function)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter, "_patch_lang", patch_lang)
        yield
