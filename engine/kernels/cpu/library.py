"""The ctypes declarations of the C structures and functions in src/. Fields are in the order of the C code."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_float, c_int, c_int32, c_int64, c_long, c_uint8, c_void_p
from functools import cache
from pathlib import Path

from engine.kernels.cpu.compiler import built

FLOAT32, BFLOAT16, INT8, FP8, INT4, GROUPED4, GROUPED8 = range(7)


class Linear(ctypes.Structure):
    """The C structure of a packed weight matrix. ``type`` is one of the constants above."""

    _fields_ = [
        ("weights", c_void_p),
        ("scales", c_void_p),
        ("bias", c_void_p),
        ("inputs", c_long),
        ("outputs", c_long),
        ("type", c_int),
    ]


class Layer(ctypes.Structure):
    """The C structure of one layer: its weights and its KV cache."""

    _fields_ = [
        ("before_attention", c_void_p),
        ("after_attention", c_void_p),
        ("before_mlp", c_void_p),
        ("after_mlp", c_void_p),
        ("head_norm", c_void_p),
        ("qkv", Linear),
        ("output", Linear),
        ("gate_up", Linear),
        ("down", Linear),
        ("cos", c_void_p),
        ("sin", c_void_p),
        ("cache", c_void_p),
        ("scales", c_void_p),
        ("group", c_long),
        ("window", c_long),
        ("scale", c_float),
    ]


class Screen(ctypes.Structure):
    """The C structure of the 8-bit copy of the output layer, by which the largest logits are found first
    (screening)."""

    _fields_ = [("numbers", Linear), ("errors", c_void_p), ("sizes", c_void_p)]


class Model(ctypes.Structure):
    """The C structure of a model: its layers, other weights and sizes."""

    _fields_ = [
        ("layers", POINTER(Layer)),
        ("count", c_long),
        ("embedding", c_void_p),
        ("final_norm", c_void_p),
        ("head_weights", Linear),
        ("hidden", c_long),
        ("heads", c_long),
        ("kv_heads", c_long),
        ("head", c_long),
        ("inner", c_long),
        ("page", c_long),
        ("epsilon", c_float),
        ("embedding_scale", c_float),
        ("score_cap", c_float),
        ("logit_cap", c_float),
        ("type", c_int),
        ("cache_type", c_int),
        ("gelu", c_int),
        ("coded", c_int),
        ("screen", Screen),
    ]


class Span(ctypes.Structure):
    """The C structure of consecutive tokens of one sequence in a step: ``rows`` rows from ``row`` on, the first of
    which is at ``position`` of the sequence, and the sequence's block table."""

    _fields_ = [("row", c_long), ("rows", c_long), ("position", c_long), ("table", POINTER(c_int32))]


class Step(ctypes.Structure):
    """The C structure of one step: its tokens, its spans, and the rows whose logits are wanted."""

    _fields_ = [
        ("tokens", POINTER(c_int64)),
        ("positions", POINTER(c_int64)),
        ("slots", POINTER(c_int64)),
        ("rows", c_long),
        ("spans", POINTER(Span)),
        ("spans_count", c_long),
        ("wanted", POINTER(c_int64)),
        ("wanted_count", c_long),
        ("logits", c_void_p),
        ("sound", POINTER(c_uint8)),
        ("largest", POINTER(c_int64)),
        ("screened", c_int),
        ("multiplied", c_long),
    ]


@cache
def loaded(path: Path | None = None) -> ctypes.CDLL:
    """Returns the loaded library at ``path``; None: the one of ``built``. Raises CompilerError and ValueError as
    ``built`` does."""
    library = ctypes.CDLL(str(path or built()))
    library.manta_pool_open.argtypes = [c_int]
    library.manta_pool_open.restype = c_void_p
    library.manta_pool_close.argtypes = [c_void_p]
    library.manta_pool_close.restype = None
    library.manta_step.argtypes = [POINTER(Model), POINTER(Step), c_void_p, c_void_p, c_void_p]
    library.manta_step.restype = None
    library.manta_product.argtypes = [POINTER(Linear), c_void_p, c_void_p, c_void_p, c_long, c_void_p]
    library.manta_product.restype = None
    library.manta_scratch_floats.argtypes = [POINTER(Model), c_long]
    library.manta_scratch_floats.restype = c_long
    library.manta_tiles.argtypes = []
    library.manta_tiles.restype = c_int
    return library
