"""What formats of weights, keys and values cost in quality and in bytes.

    python -m load_tests.engine.formats

Reads held-out English token by token, keys and values through the cache in their format, and prints the perplexity of
the answers for each format beside that of the engine's own dtype; then the same for formats of the weights. Needs the
data that the models were trained on.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from tqdm import tqdm

from deployments.models.training.english import read_english
from deployments.models.training.stream import encode
from deployments.models.training.tokenizer import load_tokenizer
from engine import SamplingParams
from engine.backend import StepRunner, make_runner
from engine.config import EngineConfig, KVDTypeName, WeightDTypeName
from engine.kernels.reference import ReferenceKernels
from engine.kv.cache import KVCache
from engine.kv.format import format_of
from engine.kv.planner import bytes_per_token
from engine.kv.shape import shapes_of
from engine.model.decoder import Decoder
from engine.model.source import open_model
from engine.scheduler.step_plan import Chunk
from engine.sequence import Sequence as SequenceState

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "deployments" / "models" / "frontier"
BATCH = 32  # texts that are read side by side
Row = tuple[list[int], list[float]]  # tokens, and what predicting each counts


def surprise(model: Decoder[Any], config: EngineConfig, rows: Sequence[Row], bar: tqdm[None]) -> tuple[float, int]:
    """Nats of all tokens that count, and their number. One token of each row in a step, as when decoding."""
    nats, counted = 0.0, 0
    shapes = shapes_of(model.spec, config)
    cache, runner = KVCache(shapes, prefix_caching=False), make_runner(model, config, shapes, model.spec.context_length)
    for start in range(0, len(rows), BATCH):
        group = rows[start : start + BATCH]
        states = [
            SequenceState(str(n), list(ids), len(ids), SamplingParams(), "", 0, 1) for n, (ids, _) in enumerate(group)
        ]
        assert all(cache.admit(state, spare=0) for state in states)
        for place in range(max(len(ids) for ids, _ in group) - 1):
            for logits, (ids, weights) in read(runner, cache, states, group, place):
                if weights[place + 1] > 0:
                    nats -= float(logits.log_softmax(-1)[ids[place + 1]])
                    counted += 1
        for state in states:
            cache.release(state)
        bar.update(len(group))
    return nats, counted


def read(
    runner: StepRunner, cache: KVCache, states: Sequence[SequenceState], rows: Sequence[Row], place: int
) -> Iterator[tuple[torch.Tensor, Row]]:
    """One step: the token at ``place`` of every row that goes on after it; logits [vocab] after it, with their row."""
    live = [(state, row) for state, row in zip(states, rows, strict=True) if place + 1 < len(row[0])]
    for state, (ids, _) in live:
        state.tokens, state.computed = ids[: place + 1], place
        assert cache.prepare(state) == []
    chunks, logits, *_ = runner.run([Chunk(state, place, 1) for state, _ in live])
    by_name = {state.request_id: row for state, row in live}
    for chunk, found in zip(chunks, logits, strict=True):
        yield found, by_name[chunk.sequence.request_id]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder that holds corpus/")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--formats", nargs="*", choices=get_args(KVDTypeName), default=["int8", "fp8"], help="of KV")
    parser.add_argument(
        "--weights", nargs="*", choices=get_args(WeightDTypeName), default=["int8", "int4"], help="formats of weights"
    )
    parser.add_argument("--texts", type=int, default=640)
    options = parser.parse_args()
    texts = read_english(options.data, held_out=True)[: options.texts]
    rows = encode(load_tokenizer(options.model), [(turns, 1.0) for turns in texts])
    dtype: torch.dtype = getattr(torch, options.dtype)
    model = Decoder.load(open_model(options.model), dtype, torch.device("cpu"), ReferenceKernels())
    settings: dict[str, dict[str, Any]] = {
        options.dtype: {},
        **{f"KV {name}": {"kv_dtype": name} for name in options.formats},
        **{f"weights {name}": {"weight_dtype": name} for name in options.weights},
    }
    usual = 0.0
    for label, setting in settings.items():
        config = EngineConfig(model=str(options.model), dtype=options.dtype, **setting)
        with tqdm(total=len(rows), desc=label, unit=" texts") as bar:
            nats, counted = surprise(model, config, rows, bar)
        perplexity = math.exp(nats / counted)
        usual = usual or perplexity
        size = bytes_per_token(model.spec, format_of(config.kv_dtype, dtype))
        print(f"{label}: perplexity {perplexity:.4f} ({perplexity / usual - 1:+.3%}), {size:,} KV bytes per token")
    print(f"over {counted:,} tokens of answers in {len(rows):,} texts")


if __name__ == "__main__":
    main()
