"""Every kernel against its definition in float64, in the sizes of real models: ||error|| / ||right|| <= 1e-2."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.kernels.triton.activations import gated
from engine.kernels.triton.attention import paged_attention
from engine.kernels.triton.heads import place_heads
from engine.kernels.triton.norms import add_rms_norm, rms_norm
from engine.kernels.triton.tuning import card_of, format_of, tuning_of
from engine.kv.format import FP8, INT8, KVFormat
from engine.kv.format import format_of as kv_format_of
from engine.model.rope import rope_tables
from load_tests.gpu import groups, products
from load_tests.gpu.figure import Bench, Case, Figure
from load_tests.gpu.pages import BLOCK, Heads, Part, attended, held, plan_of, random_pages
from load_tests.gpu.shapes import CONFIGS, LLAMA_8B, QWEN_8B, spec_named

TOLERANCE = 1e-2
FP8_TOLERANCE = 4e-2  # of what is rounded to three bits of mantissa and compared with what was not


def compared(name: str, found: Tensor, right: Tensor, tolerance: float = TOLERANCE) -> Figure:
    """The error of ``found`` as a part of ``right``; no number is an error."""
    error = float((found.double() - right).norm() / right.norm())
    return Figure(name, error, "", target=f"<= {tolerance:g}", good=error <= tolerance)


def cases(bench: Bench) -> Iterator[Case]:
    """Attention and what goes before it, norms, activations; then products and sampling."""
    dtypes = (torch.float32,) if bench.dry else (torch.bfloat16, torch.float16)
    for dtype in dtypes:
        for model in (QWEN_8B,) if bench.dry else CONFIGS:
            label = f"{model} {str(dtype).removeprefix('torch.')}"
            yield Case(f"attention {label}", partial(_attention, bench, model, dtype))
            yield Case(f"place heads {label}", partial(_heads, bench, model, dtype))
            yield Case(f"rows {label}", partial(_rows, bench, model, dtype))
    yield Case("sampling", partial(products.check_sampling, bench))
    yield Case("experts", partial(products.check_experts, bench, dtypes[0]))
    for dtype in dtypes:
        yield Case(f"products in groups {str(dtype).removeprefix('torch.')}", partial(groups.check, bench, dtype))
    for model in (QWEN_8B,) if bench.dry else CONFIGS:
        yield Case(f"products {model}", partial(products.check, bench, model, dtypes[0]))
    if not bench.dry:
        yield Case("products float16", partial(products.check, bench, LLAMA_8B, torch.float16))


def _attention(bench: Bench, model: str, dtype: torch.dtype) -> list[Figure]:
    spec = spec_named(model, bench)
    heads = Heads(spec.num_heads, spec.num_kv_heads, spec.head_dim)
    unit = 20 if bench.dry else 1000
    decodes = tuple(Part(1, unit + 37 * n) for n in range(2 if bench.dry else 16))
    mixed = (Part(1, unit), Part(2 * unit, 2 * unit), Part(unit // 2, 2 * unit + 5), Part(3, unit))
    plain = kv_format_of("auto", dtype)
    settings: list[tuple[str, tuple[Part, ...], KVFormat, int | None, float | None, bool]] = [
        ("decode", decodes, plain, None, None, False),
        ("decode, deterministic", decodes, plain, None, None, True),
        ("mixed", mixed, plain, None, None, False),
        ("mixed, deterministic", mixed, plain, None, None, True),
        ("mixed, int8", mixed, INT8, None, None, False),
        ("mixed, fp8", mixed, FP8, None, None, False),
    ]
    if model == LLAMA_8B and not bench.dry:  # the others have the same kernels but for their group of heads
        settings += [
            ("mixed, window", mixed, plain, unit // 2, None, False),
            ("decode, window", decodes, plain, unit // 2, None, False),
            ("mixed, cap", mixed, plain, None, 30.0, False),
            ("mixed, deterministic, int8", mixed, INT8, None, None, True),
            ("decode, int8", decodes, INT8, None, None, False),
            ("decode, fp8", decodes, FP8, None, None, False),
        ]
    figures = []
    for name, parts, form, window, cap, deterministic in settings:
        cache, tables = random_pages(parts, heads, form, bench.device)
        tuning = tuning_of(card_of(bench.device), heads.size, format_of(dtype, form.number))
        plan = plan_of(parts, tables, heads, tuning.rows(deterministic), window=window)
        rows = sum(part.count for part in parts)
        query = 2 * torch.randn(rows, heads.queries + 2 * heads.keys, heads.size, device=bench.device)
        query = query.to(dtype)[:, : heads.queries]
        scale = heads.size**-0.5
        found = paged_attention(query, cache, plan, scale, cap, deterministic=deterministic)
        figures.append(compared(name, found, attended(query, cache, tables, parts, scale, cap, window)))
    return figures


def _heads(bench: Bench, model: str, dtype: torch.dtype) -> list[Figure]:
    spec, device = spec_named(model, bench), bench.device
    heads = Heads(spec.num_heads, spec.num_kv_heads, spec.head_dim)
    parts = (Part(24, 24), Part(1, 17)) if bench.dry else (Part(1500, 1500), Part(1, 700), Part(200, 900))
    rope = spec.kinds[0].rope
    assert rope is not None
    cos, sin = (part.to(device) for part in rope_tables(rope, heads.size, max(p.length for p in parts)))
    total, rows = heads.queries + heads.keys, sum(part.count for part in parts)
    figures = []
    for form in (kv_format_of("auto", dtype), INT8, FP8):
        cache, tables = random_pages(parts, heads, form, device)
        plan = plan_of(parts, tables, heads, (16, 64), rotation=(cos, sin))
        qkv = torch.randn(rows, total + heads.keys, heads.size, device=device).to(dtype)
        normed = spec.head_norm == "head"
        norm = (1 + torch.rand(total, heads.size, device=device)).to(dtype) if normed else None
        right = qkv.double()
        if norm is not None:
            scale = torch.rsqrt(right[:, :total].square().mean(-1, keepdim=True) + spec.norm.eps)
            right[:, :total] *= scale * norm.double()
        at = plan.positions.long()
        turned = right[:, :total].roll(heads.size // 2, -1) * sin[at].double().unsqueeze(1)
        right[:, :total] = right[:, :total] * cos[at].double().unsqueeze(1) + turned
        place_heads(qkv, norm, spec.norm.eps, cache, plan)
        written = [
            held(cache, tables[row, : -(-part.length // BLOCK)], part.length)[:, part.length - part.count :]
            for row, part in enumerate(parts)
        ]
        stored = torch.cat(written, 1).transpose(0, 1)
        tolerance = FP8_TOLERANCE if form is FP8 else TOLERANCE
        figures.append(compared(f"queries, {form.name}", qkv[:, : heads.queries], right[:, : heads.queries]))
        figures.append(compared(f"keys and values, {form.name}", stored, right[:, heads.queries :], tolerance))
    return figures


def _rows(bench: Bench, model: str, dtype: torch.dtype) -> list[Figure]:
    spec, device = spec_named(model, bench), bench.device
    rows = 4 if bench.dry else 777
    x, update = (torch.randn(rows, spec.hidden_size, device=device).to(dtype) for _ in range(2))
    weight = (1 + torch.rand(spec.hidden_size, device=device)).to(dtype)

    def normed(wide: Tensor) -> Tensor:
        return wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + spec.norm.eps) * weight.double()

    figures = [compared("rms norm", rms_norm(x, weight, spec.norm.eps), normed(x.double()))]
    total = x.double() + update.double()
    figures.append(compared("add rms norm", add_rms_norm(x, update, weight, spec.norm.eps), normed(total)))
    figures.append(compared("add rms norm, sum", x, total))
    both = torch.randn(rows, 2 * spec.intermediate_size, device=device).to(dtype)
    gate, up = both.double().chunk(2, -1)
    figures.append(compared("gated silu", gated(both, "silu"), F.silu(gate) * up))
    tanh = F.gelu(gate, approximate="tanh") * up
    return [*figures, compared("gated gelu_tanh", gated(both, "gelu_tanh"), tanh)]
