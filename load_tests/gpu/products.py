"""Products of all formats, experts and sampling against their definitions."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from engine.api import SamplingParams
from engine.decode.sampling import Draw, draw_plain
from engine.kernels.triton.activations import gated
from engine.kernels.triton.experts import experts_mix
from engine.kernels.triton.matmul import matmul, new_arrivals
from engine.kernels.triton.quantised import quantised_matmul
from engine.kernels.triton.sampling import sample_tokens, settings_of
from engine.kernels.triton.tiling import tiling
from engine.kernels.triton.vector import vector_matmul
from engine.model.experts import route
from engine.model.spec import ExpertSpec, ModelSpec
from engine.model.weights import ExpertWeights
from engine.quant.format import FP8, INT4, INT8, W8A8
from engine.quant.matrix import packed, rounded_rows
from engine.quant.quantise import quantise
from load_tests.gpu import correctness
from load_tests.gpu.figure import Bench, Figure
from load_tests.gpu.shapes import LLAMA_8B, QWEN_8B, spec_named

FORMS = (INT8, INT4, W8A8, FP8)


def matrices_of(spec: ModelSpec) -> dict[str, tuple[int, int]]:
    """Outputs and inputs of the matrices of a layer."""
    hidden, inner, head = spec.hidden_size, spec.intermediate_size, spec.head_dim
    return {
        "qkv": ((spec.num_heads + 2 * spec.num_kv_heads) * head, hidden),
        "output": (hidden, spec.num_heads * head),
        "gate up": (2 * inner, hidden),
        "down": (hidden, inner),
    }


def check(bench: Bench, model: str, dtype: torch.dtype) -> list[Figure]:
    """The product whose order is fixed, and those of quantised weights, for few rows and many."""
    arrivals = new_arrivals(bench.device)
    figures = []
    for name, (outputs, inputs) in matrices_of(spec_named(model, bench)).items():
        weight = torch.randn(outputs, inputs, device=bench.device).mul_(inputs**-0.5).to(dtype)
        forms = [(form, packed(quantise(weight, form), form)) for form in FORMS]
        # Every tiling is compiled, which takes longer than all the rest: all of them in the sizes of one model.
        whole = model == LLAMA_8B and dtype == torch.bfloat16
        for rows in (3,) if bench.dry else (37, 1, 300) if whole else (37,):
            x = torch.randn(rows, inputs, device=bench.device).to(dtype)
            right = x.double() @ weight.double().t()
            figures.append(correctness.compared(f"{name}, {rows} rows", matmul(x, weight, None, arrivals), right))
            if rows == 1:
                figures.append(correctness.compared(f"{name}, vector", vector_matmul(x, weight, None), right))
            if rows > 64:
                figures.append(_same_bits(name, x, weight, arrivals))
            for form, matrix in forms:
                inner = rounded_rows(x.float(), form).double()
                right = inner @ matrix.dequantised(torch.float32).double().t()
                for fixed in (False, True) if rows in (3, 37) else (False,):
                    found = quantised_matmul(x, matrix, None, arrivals, fixed=fixed)
                    label = f"{name}, {rows} rows, {form.name}" + (", fixed" if fixed else "")
                    figures.append(correctness.compared(label, found, right))
    return figures


def _same_bits(name: str, x: Tensor, weight: Tensor, arrivals: Tensor) -> Figure:
    """Rows of a product of fixed order that differ where there are fewer of them, in any bit."""
    together = matmul(x, weight, None, arrivals)
    differing = 0
    for rows in (1, 2, 16, 17, 64, 65, 128):
        alone = matmul(x[:rows], weight, None, arrivals)
        differing += int((alone != together[:rows]).any(1).sum())
    if weight.dtype == torch.bfloat16:
        tile = tiling("bfloat16", 64, x.device)
        by_pointers = matmul(x, weight, None, arrivals, tile=tile)  # not loaded by TMA
        differing += int((by_pointers != together).any(1).sum())
    return Figure(f"{name}, rows of other bits", differing, "rows", target="0", good=not differing)


def random_experts(bench: Bench, dtype: torch.dtype) -> ExpertWeights:
    """Those of a layer of Qwen3-30B-A3B."""
    spec = ExpertSpec(4, 2, 32, True) if bench.dry else ExpertSpec(128, 8, 768, True)
    hidden, inner = (32 if bench.dry else 2048), spec.intermediate_size

    def made(*shape: int) -> Tensor:
        return torch.randn(shape, device=bench.device, dtype=dtype).mul_(shape[-1] ** -0.5)

    gate_up, down = made(spec.count, 2 * inner, hidden), made(spec.count, hidden, inner)
    return ExpertWeights(spec, made(spec.count, hidden), gate_up, down)


def check_experts(bench: Bench, dtype: torch.dtype) -> list[Figure]:
    """With the routing given: near ties may fall to either side."""
    weights = random_experts(bench, dtype)
    figures = []
    for tokens in (3,) if bench.dry else (1, 64, 1000):
        x = torch.randn(tokens, weights.router.shape[1], device=bench.device).to(dtype)
        scores = x @ weights.router.t()
        shares, chosen = route(scores, weights.spec)
        right = torch.zeros(x.shape, dtype=torch.float64, device=bench.device)
        for expert in range(weights.spec.count):
            rows, places = torch.where(chosen == expert)
            gate, up = (x[rows].double() @ weights.gate_up[expert].double().t()).chunk(2, -1)
            outputs = (torch.nn.functional.silu(gate) * up) @ weights.down[expert].double().t()
            right.index_add_(0, rows, outputs * shares[rows, places].double().unsqueeze(1))
        for fixed in (False, True):
            found = experts_mix(x, weights, scores, partial(gated, activation="silu"), fixed=fixed)
            figures.append(correctness.compared(f"{tokens} tokens{', fixed' if fixed else ''}", found, right))
    return figures


def check_sampling(bench: Bench) -> list[Figure]:
    """Tokens against those that plain torch draws on the CPU. The odd near tie may fall to the other side."""
    rows, vocab = (4, 320) if bench.dry else (64, spec_named(QWEN_8B, bench).vocab_size)
    settings = {
        "greedy": SamplingParams(temperature=0),
        "temperature": SamplingParams(temperature=0.8),
        "top-k": SamplingParams(temperature=0.8, top_k=50),
        "top-p": SamplingParams(temperature=0.8, top_p=0.9),
        "top-k, top-p, min-p": SamplingParams(temperature=1.1, top_k=200, top_p=0.95, min_p=0.02),
    }
    figures = []
    logits = 3 * torch.randn(rows, vocab)
    for name, params in settings.items():
        draws = [Draw(params, 7 + row, 100 + row) for row in range(rows)]
        right = draw_plain(logits, draws, range(rows))
        found = sample_tokens(logits.to(bench.device), settings_of(draws, range(rows), vocab).to(bench.device))
        wrong = float((found.cpu() != right).double().mean())
        figures.append(Figure(name, wrong, "of rows differ", target="<= 0.02", good=wrong <= 0.02))
    return figures
