"""Triton's interpreter in less than two thirds of its time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import triton.language as tl
from triton.runtime import interpreter


@contextmanager
def functions_replaced_once() -> Iterator[None]:
    """Lets the interpreter replace the functions of ``triton.language`` by its own once for a launch, while entered.

    By itself it looks for those to replace at every call of a function of ours within a kernel, where it finds none:
    the launch has replaced them, and puts them back at its end. The search is half of the time of most kernels."""
    own = interpreter._patch_lang

    def patch_lang(function: Any) -> Any:
        known = function.__globals__.values()
        modules = [module for module in (tl, tl.core) if any(module is each for each in known)]
        found = (tl.tensor.to, *(module.load for module in modules))
        return own(function) if any(map(tl.core.is_builtin, found)) else interpreter._LangPatchScope()

    interpreter._patch_lang = patch_lang
    try:
        yield
    finally:
        interpreter._patch_lang = own
