"""``python -m engine.plan`` prints the memory and compute that a model's KV cache costs, by context length."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

import torch

from engine.kv.format import format_of
from engine.kv.planner import GIB, KVPlan
from engine.kv.shape import GroupShape
from engine.model.configuration import spec_of
from engine.model.source import open_model
from engine.model.spec import ModelSpec
from engine.parallel.share import Share

FORMATS = {name: format_of(name, torch.bfloat16) for name in ("float32", "bfloat16", "float16", "int8", "fp8")}
LLAMA_70B = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 128_256,
    "hidden_size": 8_192,
    "intermediate_size": 28_672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131_072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500_000.0,
    "hidden_act": "silu",
}


def arguments() -> argparse.Namespace:
    """Parses the command line and returns its options. Exits for invalid ones."""
    parser = argparse.ArgumentParser(
        prog="python -m engine.plan",
        description="Prints what the KV cache of a model costs: bytes per token, and per context length the bytes of "
        "one sequence, the arithmetic of its prefill, and how many such sequences fit. Needs config.json alone, "
        "no weights. Without a model: a llama of 70B parameters.",
        epilog="Try: python -m engine.plan deployments/models/frontier --memory 0.5 --lengths 256 512",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("model", type=Path, nargs="?", help="Hugging Face directory")
    parser.add_argument("--memory", type=float, default=40.0, metavar="GIB", help="for the KV cache, on each GPU")
    parser.add_argument(
        "--ranks", type=int, default=1, help="processes over which the model is split (tensor_parallel)"
    )
    parser.add_argument("--dtype", choices=FORMATS, default="bfloat16", help="of keys and values")
    parser.add_argument("--block-size", type=int, default=16, metavar="TOKENS", help="tokens per block")
    parser.add_argument("--chunk", type=int, default=512, metavar="TOKENS", help="most of one sequence in one step")
    parser.add_argument("--sequences", type=int, default=256, help="most at once; bounds what windowed layers get")
    parser.add_argument(
        "--lengths",
        type=int,
        nargs="+",
        metavar="TOKENS",
        help="context lengths; by default from 4,096, doubled, up to what the model knows",
    )
    return parser.parse_args()


def lengths_up_to(context: int, first: int = 4_096) -> list[int]:
    """Returns ``first``, doubled as long as ``context`` is not exceeded. For a shorter context, returns the context
    alone."""
    lengths = [first]
    while lengths[-1] * 2 <= context:
        lengths.append(lengths[-1] * 2)
    return lengths if first <= context else [context]


def table(plan: KVPlan, lengths: Iterable[int]) -> str:
    """Returns a table with a line per context length. Costs are also given relative to the first length."""
    rows = [plan.of_length(length) for length in lengths]
    base = rows[0]
    lines = [f"{'context':>9} {'KV MiB':>11} {'':>7} {'prefill TFLOP':>14} {'':>8} {'sequences':>10}"]
    lines += [
        f"{row.length:>9,} {row.kv_bytes / 1024**2:>11,.1f} {row.kv_bytes / base.kv_bytes:>6.1f}x "
        f"{row.prefill_flops / 1e12:>14,.3f} {row.prefill_flops / base.prefill_flops:>7.1f}x {row.sequences:>10,}"
        for row in rows
    ]
    return "\n".join(lines)


def summary(spec: ModelSpec, plan: KVPlan) -> str:
    """Returns the formula for the bytes per token with its numbers, a line per block pool, and the total size."""
    size = f"{spec.head_dim} x {plan.form.number.itemsize} bytes"
    head = f"({size} + 2 of a scale)" if plan.form.scaled else size
    factors = f"2 x {spec.num_layers} layers x {spec.num_kv_heads} KV heads x {head}"
    ungrouped = plan.bytes_per_token * spec.num_heads // spec.num_kv_heads
    lines = [
        f"{factors} = {plan.bytes_per_token:,} bytes per token",
        *(pool(shape) for shape in plan.shapes),
        f"{plan.total_bytes / GIB:.2f} GiB in all",
    ]
    if ungrouped != plan.bytes_per_token:
        lines.append(f"(if all {spec.num_heads} query heads had keys and values of their own: {ungrouped:,} per token)")
    return "\n".join(lines)


def pool(shape: GroupShape) -> str:
    """Returns one line of text about a KV block pool: its number of blocks, their size in tokens, and, for
    sliding-window layers, the window and the most blocks that a sequence holds."""
    seen = "" if shape.window is None else f" for layers that see {shape.window:,} tokens, {shape.bound} a sequence"
    return f"{shape.blocks:,} blocks of {shape.block_size} tokens{seen}: {shape.blocks * shape.block_size:,} tokens"


def main() -> None:
    """Prints the formula, the block pools and the table of context lengths. Raises KeyError and UnsupportedModelError
    as ``spec_of`` does."""
    options = arguments()
    spec = Share(0, options.ranks).spec(spec_of(LLAMA_70B) if options.model is None else open_model(options.model).spec)
    plan = KVPlan.within(
        spec,
        FORMATS[options.dtype],
        int(options.memory * GIB),
        block_size=options.block_size,
        longest_chunk=options.chunk,
        sequences=options.sequences,
    )
    print(summary(spec, plan))
    print(table(plan, options.lengths or lengths_up_to(spec.context_length)))


if __name__ == "__main__":
    main()
