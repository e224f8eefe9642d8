"""The variants of the attention kernels to compile ahead."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

import triton

from engine.kernels.triton.attention_split import merge_kernel, split_kernel
from engine.kernels.triton.attention_tiles import tiles_kernel
from engine.kernels.triton.tiles import queries_per_tile
from engine.kernels.triton.tuning import Format, Shape, padded_head, tuning_of
from engine.kernels.triton.variants import Variant

_TYPES = {
    "float32": ("*fp32", "*fp32"),
    "16": ("*bf16", "*bf16"),
    "int8": ("*bf16", "*i16"),
    "fp8": ("*bf16", "*i16"),
}
_NUMBERS = {"bend": "fp32", "unit": "fp32", "row_stride": "i32", "width": "i32", "splits": "i32"}
_TABLES = dict.fromkeys(("tables", "starts", "counts", "lengths", "tiles"), "*i32")
_ALIGNED = frozenset({"row_stride"})


@dataclass(frozen=True, slots=True)
class _Model:
    name: str
    heads: int
    kv_heads: int
    head_dim: int
    window: int = 0
    capped: bool = False


_MODELS = (
    _Model("Llama-3.1-8B, Qwen3-8B", 32, 8, 128),
    _Model("Qwen3-0.6B", 16, 8, 128),
    _Model("Llama-3.2-1B", 32, 8, 64),
    _Model("Phi-3-mini", 32, 32, 96, window=2047),
    _Model("Gemma-2-9B", 16, 8, 256, window=4096, capped=True),
)


def variants() -> Iterator[Variant]:
    """Yields the variants to compile ahead: every KV format for two of the models, 16 bits for all, each in default and
    deterministic form."""
    for model in _MODELS:
        for form in get_args(Format) if model in (_MODELS[0], _MODELS[-1]) else ("16",):
            tuning = tuning_of("", model.head_dim, form)
            yield _tiles(model, form, tuning.many, 0)
            yield _split(model, form, tuning.few, 0)
            yield _tiles(model, form, tuning.exact, tuning.exact_split)
            yield _split(model, form, tuning.exact, tuning.exact_split)
    yield from (_merge(_MODELS[0], split) for split in (0, 512))


def _attended(
    model: _Model, form: Format, shape: Shape, rows: int, split: int
) -> tuple[dict[str, str], dict[str, object]]:
    """Signature and constants of the kernels that read keys, for tiles with room for ``rows``."""
    query, number = _TYPES[form]
    scales = "*bf16" if form in ("int8", "fp8") else number
    signature = {**_NUMBERS, **_TABLES, "query": query, "numbers": number, "scales": scales, "out": query}
    signature |= dict.fromkeys(("parts", "tops", "totals"), "*fp32")
    group = model.heads // model.kv_heads
    constants: dict[str, object] = {
        "KV_HEADS": model.kv_heads,
        "GROUP": group,
        "HEAD_DIM": model.head_dim,
        "BLOCK_SIZE": 16,
        "WINDOW": model.window,
        "CAPPED": model.capped,
        "SCALED": form in ("int8", "fp8"),
        "WORDS": form if form in ("int8", "fp8") else "",
        "QUERIES": queries_per_tile(rows, model.heads, model.kv_heads),
        "SPLIT": split,
        "BLOCK_M": max(16, shape.rows, triton.next_power_of_2(group)),
        "BLOCK_N": shape.keys,
        "BLOCK_D": padded_head(model.head_dim),
        "OVERLAP": True,
    }
    return signature, constants


def _name(kernel: str, model: _Model, form: str, split: int) -> str:
    return f"{kernel} {form} {model.name}{' exact' if split else ''}"


def _tiles(model: _Model, form: Format, shape: Shape, split: int) -> Variant:
    signature, constants = _attended(model, form, shape, shape.rows, split)
    name = _name("tiles", model, form, split)
    return Variant(name, tiles_kernel, signature, constants, _ALIGNED, shape.warps, shape.stages, not split)


def _split(model: _Model, form: Format, shape: Shape, split: int) -> Variant:
    signature, constants = _attended(model, form, shape, 16, split)
    constants |= {"MIN_KEYS": 256, "ALONE": False}
    name = _name("split", model, form, split)
    return Variant(name, split_kernel, signature, constants, _ALIGNED, shape.warps, shape.stages, not split)


def _merge(model: _Model, split: int) -> Variant:
    shape = Shape(16, 64, 1 if split else 4, 1)
    signature, constants = _attended(model, "16", shape, 16, split)
    constants |= {"MIN_KEYS": 256, "SPLITS": 16}
    kept = {name: value for name, value in constants.items() if name in merge_kernel.arg_names}
    name = _name("merge", model, "16", split)
    return Variant(name, merge_kernel, signature, kept, frozenset(), shape.warps, shape.stages, not split)
