"""How fast the other kernels are: rows and few-row products by bytes, products of many rows by operations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F

from engine.api import SamplingParams
from engine.decode.sampling import Draw
from engine.kernels.triton.activations import gated
from engine.kernels.triton.experts import experts_mix
from engine.kernels.triton.grouped import grouped_matmul
from engine.kernels.triton.heads import place_heads
from engine.kernels.triton.matmul import matmul, new_arrivals
from engine.kernels.triton.norms import add_rms_norm, rms_norm
from engine.kernels.triton.quantised import quantised_matmul
from engine.kernels.triton.sampling import sample_tokens, settings_of
from engine.kernels.triton.vector import vector_matmul
from engine.kv.format import format_of
from engine.model.rope import rope_tables
from engine.quant.matrix import packed
from engine.quant.quantise import quantise
from load_tests.gpu import attention
from load_tests.gpu.clock import seconds_of
from load_tests.gpu.figure import Bench, Case, Figure
from load_tests.gpu.groups import TYPES, packed_as
from load_tests.gpu.pages import Heads, Part, plan_of, random_pages
from load_tests.gpu.products import FORMS, matrices_of, random_experts
from load_tests.gpu.shapes import LLAMA_8B, QWEN_8B, spec_named

FIXED_TARGET = 0.8  # of cuBLAS's speed


def cases(bench: Bench) -> Iterator[Case]:
    """Attention first."""
    yield from attention.cases(bench)
    yield Case("rows", partial(_rows, bench))
    yield Case("place heads", partial(_heads, bench))
    yield Case("sampling", partial(_sampling, bench))
    yield Case("experts", partial(_experts, bench))
    for name in ("gate up", "down") if bench.dry else ("gate up", "down", "qkv", "output"):
        yield Case(f"products {name}", partial(_products, bench, name))


def _rows(bench: Bench) -> list[Figure]:
    spec = spec_named(LLAMA_8B, bench)
    figures = []
    for rows in (2,) if bench.dry else (256, 8192):
        made = partial(torch.randn, device=bench.device, dtype=bench.dtype)
        x, update, weight = made(rows, spec.hidden_size), made(rows, spec.hidden_size), made(spec.hidden_size)
        both = made(rows, 2 * spec.intermediate_size)
        work: dict[str, tuple[Callable[[], object], int]] = {
            "rms norm": (partial(rms_norm, x, weight, 1e-5), 2 * x.nbytes),
            "add rms norm": (partial(add_rms_norm, x, update, weight, 1e-5), 4 * x.nbytes),
            "gated": (partial(gated, both, "silu"), both.nbytes * 3 // 2),
        }
        for name, (run, amount) in work.items():
            figures.append(bench.rated(f"{name}, {rows} rows", seconds_of(bench, run), amount, "copy"))
    return figures


def _heads(bench: Bench) -> list[Figure]:
    spec = spec_named(QWEN_8B, bench)
    heads, rope = Heads(spec.num_heads, spec.num_kv_heads, spec.head_dim), spec.kinds[0].rope
    assert rope is not None
    figures = []
    for parts in ([Part(4, 20)],) if bench.dry else ([Part(1, 1024)] * 256, [Part(8192, 8192)]):
        form = format_of("auto", bench.dtype)
        cache, tables = random_pages(parts, heads, form, bench.device)
        cos, sin = rope_tables(rope, heads.size, parts[0].length)
        rotation = cos.to(bench.device), sin.to(bench.device)
        plan = plan_of(parts, tables, heads, (16, 128), rotation=rotation)
        rows = sum(part.count for part in parts)
        total = heads.queries + 2 * heads.keys
        qkv = torch.randn(rows, total, heads.size, device=bench.device, dtype=bench.dtype)
        norm = torch.ones(total - heads.keys, heads.size, device=bench.device, dtype=bench.dtype)
        seconds = seconds_of(bench, partial(place_heads, qkv, norm, 1e-6, cache, plan))
        amount = 2 * qkv.nbytes + rows * heads.size * 8
        figures.append(bench.rated(f"place heads, {rows} rows", seconds, amount, "copy"))
    return figures


def _sampling(bench: Bench) -> list[Figure]:
    rows, vocab = (2, 320) if bench.dry else (256, spec_named(QWEN_8B, bench).vocab_size)
    logits = 3 * torch.randn(rows, vocab, device=bench.device)
    kinds = {
        "greedy": SamplingParams(temperature=0),
        "temperature": SamplingParams(temperature=0.8),
        "top-k 50, top-p 0.9": SamplingParams(temperature=0.8, top_k=50, top_p=0.9),
        "top-p 0.9": SamplingParams(temperature=0.8, top_p=0.9),
    }
    figures = []
    for name, params in kinds.items():
        draws = [Draw(params, row, row) for row in range(rows)]
        settings = settings_of(draws, range(rows), vocab).to(bench.device)
        seconds = seconds_of(bench, partial(sample_tokens, logits, settings))
        note = "bytes: logits once"
        figures.append(bench.rated(f"{rows} x {vocab} {name}", seconds, logits.nbytes, "copy", note=note))
    return figures


def _products(bench: Bench, name: str) -> list[Figure]:
    """Few rows wait for weights, many for the tensor cores."""
    outputs, inputs = matrices_of(spec_named(LLAMA_8B, bench))[name]
    weight = torch.randn(outputs, inputs, device=bench.device).mul_(inputs**-0.5).to(bench.dtype)
    arrivals = new_arrivals(bench.device)
    forms = [packed(quantise(weight, form), form) for form in FORMS]
    stored = {kind: packed_as(kind, weight) for kind in TYPES}
    figures = []
    for rows in (2,) if bench.dry else (1, 16, 64, 256, 1024, 4096):
        x = torch.randn(rows, inputs, device=bench.device, dtype=bench.dtype)
        work: list[tuple[str, Callable[[], object], int]] = [
            ("cuBLAS", partial(F.linear, x, weight), weight.nbytes),
            ("fixed order", partial(matmul, x, weight, None, arrivals), weight.nbytes),
        ]
        if rows == 1:
            work.append(("vector", partial(vector_matmul, x, weight, None), weight.nbytes))
        work += [(each.form.name, partial(quantised_matmul, x, each, None, arrivals), each.nbytes) for each in forms]
        work += [(kind, partial(grouped_matmul, x, each, None, arrivals), each.nbytes) for kind, each in stored.items()]
        peer_s = 0.0
        for label, run, size in work:
            amount, limit = (size + x.nbytes * (1 + outputs / inputs), "copy")
            if rows > 256:
                amount, limit = 2.0 * rows * outputs * inputs, "matmul"
            seconds = seconds_of(bench, run)
            peer_s = peer_s or seconds  # cuBLAS comes first
            figure = bench.rated(f"{name}, {rows} rows, {label}", seconds, amount, limit)
            note = f"{figure.note}; {peer_s / seconds:.0%} of cuBLAS's speed"
            if label == "fixed order" and not bench.dry:
                figure = replace(
                    figure, target=f">= {FIXED_TARGET:.0%} of cuBLAS", good=peer_s / seconds >= FIXED_TARGET
                )
            figures.append(replace(figure, note=note))
    return figures


def _experts(bench: Bench) -> list[Figure]:
    weights = random_experts(bench, bench.dtype)
    spec, hidden = weights.spec, weights.router.shape[1]
    figures = []
    for tokens in (2,) if bench.dry else (1, 64, 4096):
        x = torch.randn(tokens, hidden, device=bench.device, dtype=bench.dtype)
        scores = x @ weights.router.t()
        run = partial(experts_mix, x, weights, scores, partial(gated, activation="silu"))
        seconds = seconds_of(bench, run)
        one = 3 * hidden * spec.intermediate_size
        if tokens > 256:
            amount, limit = 2.0 * tokens * spec.per_token * one, "matmul"
        else:
            read = int(scores.topk(spec.per_token).indices.unique().numel())
            amount, limit = read * one * bench.dtype.itemsize, "copy"
        figures.append(bench.rated(f"experts, {tokens} tokens", seconds, amount, limit))
    return figures
