"""Triton's interpreter in about half of its time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from unittest import mock

import triton.language as tl
from triton.runtime import interpreter


@contextmanager
def quick_interpreter() -> Iterator[None]:
    """Leaves out what Triton's interpreter does again and again, while entered.

    It replaces the functions of ``triton.language`` by its own for a launch, and puts them back at its end. It also
    looks for those to replace at every call of a function of ours within a kernel, where it finds none: that search is
    half of the time of most kernels. And it makes a table of all types whenever it looks one up."""
    replace, look_up = interpreter._patch_lang, interpreter._get_np_dtype
    looked_up = cache(look_up)

    def patch_lang(function: Any) -> Any:
        known = function.__globals__.values()
        modules = [module for module in (tl, tl.core) if any(module is each for each in known)]
        found = (tl.tensor.to, *(module.load for module in modules))
        return replace(function) if any(map(tl.core.is_builtin, found)) else interpreter._LangPatchScope()

    def np_dtype(dtype: Any) -> Any:
        return looked_up(dtype) if type(dtype) is tl.dtype else look_up(dtype)  # those of blocks have no hash

    with mock.patch.multiple(interpreter, _patch_lang=patch_lang, _get_np_dtype=np_dtype):
        yield
