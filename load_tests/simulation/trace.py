"""``Trace``: when requests arrive and how long they are. Reads the public formats of Azure and Mooncake, and scales.

Azure's CSV (AzurePublicDataset, "AzureLLMInferenceTrace", 2023) has the columns TIMESTAMP, ContextTokens and
GeneratedTokens. Mooncake's JSONL (FAST '25 release) has timestamp in milliseconds, input_length, output_length and
hash_ids: one id for each block of 512 prompt tokens, the same id for the same block after the same prefix.
"""

from __future__ import annotations

import csv
import gzip
import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

GZIP_MAGIC = b"\x1f\x8b"
BLOCK_TOKENS = 512  # of a prefix block in Mooncake's trace
COPY_ID_BITS = 40  # ids of blocks stay below 2**40; a copy's number is added above them
COPY_JITTER_S = 30.0  # the copies of a request are spread around its time, so that bursts of the whole trace remain
MIN_SHARED = 0.01  # a block in more than this part of requests (a system prompt) is the same in all copies


class TraceError(ValueError):
    """The file is no trace: its columns are unknown, or a row cannot be read."""


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """Requests in order of arrival. All arrays have the shape [requests]."""

    name: str
    arrival: NDArray[np.float64]  # seconds from the start of the trace, ascending
    prompt: NDArray[np.int64]  # tokens, at least 1
    output: NDArray[np.int64]  # tokens, at least 1
    duration: float  # seconds, at least the last arrival
    blocks: Sequence[tuple[int, ...]] = ()  # ids of the prompt's prefix blocks, by row; empty: no prefix is shared
    row: NDArray[np.int64] | None = None  # the row of ``blocks`` of each request; None: its own number
    copy: NDArray[np.int64] | None = None  # of a scaled trace: which copy of the row the request is
    shared_blocks: frozenset[int] = frozenset()  # ids that are the same in all copies
    priority: NDArray[np.int8] | None = None  # 0 interactive, 1 batch; None: all are interactive

    def __len__(self) -> int:
        return len(self.arrival)

    def chain(self, request: int) -> tuple[int, ...]:
        """Returns the ids of the prefix blocks of a request, first to last."""
        if not self.blocks:
            return ()
        ids = self.blocks[request if self.row is None else int(self.row[request])]
        number = 0 if self.copy is None else int(self.copy[request])
        if not number:
            return ids
        offset = number << COPY_ID_BITS
        return tuple(each if each in self.shared_blocks else each + offset for each in ids)


def read_trace(path: Path) -> Trace:
    """Returns the trace in ``path``, compressed by gzip or not. The format follows from its first character.

    Raises TraceError, with the line, and OSError.
    """
    content = path.read_bytes()
    try:
        text = (gzip.decompress(content) if content[:2] == GZIP_MAGIC else content).decode()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise TraceError(f"{path.name}: {error}") from None
    lines = text.splitlines()
    return (_mooncake if text.lstrip().startswith("{") else _azure)(path.name, lines)


def _azure(name: str, lines: Iterable[str]) -> Trace:
    reader = csv.DictReader(lines)
    if reader.fieldnames is None or not {"TIMESTAMP", "ContextTokens", "GeneratedTokens"} <= set(reader.fieldnames):
        raise TraceError(
            f"{name}: neither Azure's columns (TIMESTAMP, ContextTokens, GeneratedTokens) nor Mooncake's JSON lines"
        )
    times, prompts, outputs = [], [], []
    for number, row in enumerate(reader, start=2):
        try:
            times.append(datetime.fromisoformat(row["TIMESTAMP"][:26]).timestamp())
            prompts.append(int(row["ContextTokens"]))
            outputs.append(int(row["GeneratedTokens"]))
        except (TypeError, ValueError) as error:
            raise TraceError(f"{name}:{number}: {error}") from None
    return build(name, times, prompts, outputs)


def _mooncake(name: str, lines: Iterable[str]) -> Trace:
    times, prompts, outputs, blocks = [], [], [], []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            times.append(float(row["timestamp"]) / 1000)
            prompts.append(int(row["input_length"]))
            outputs.append(int(row["output_length"]))
            blocks.append(tuple(int(each) for each in row.get("hash_ids", ())))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise TraceError(f"{name}:{number}: {type(error).__name__}: {error}") from None
    return build(name, times, prompts, outputs, blocks)


def build(
    name: str,
    times: Sequence[float],
    prompts: Sequence[int],
    outputs: Sequence[int],
    blocks: Sequence[tuple[int, ...]] = (),
) -> Trace:
    """Returns the trace of these requests, sorted by time, which then starts at 0. Lengths below 1 become 1.

    Raises TraceError if there is no request or a time is not finite.
    """
    if not len(times):
        raise TraceError(f"{name}: no requests")
    arrival = np.asarray(times, dtype=np.float64)
    if not np.isfinite(arrival).all():
        raise TraceError(f"{name}: a time is not a number")
    order = np.argsort(arrival, kind="stable")
    arrival = arrival[order] - arrival[order[0]]
    counted = Counter(each for chain in blocks for each in set(chain))
    return Trace(
        name,
        arrival,
        np.maximum(np.asarray(prompts, dtype=np.int64)[order], 1),
        np.maximum(np.asarray(outputs, dtype=np.int64)[order], 1),
        duration=math.floor(float(arrival[-1])) + 1.0,
        blocks=[blocks[place] for place in order.tolist()] if any(blocks) else (),
        shared_blocks=frozenset(each for each, count in counted.items() if count > MIN_SHARED * len(arrival)),
    )


def scaled(trace: Trace, factor: float, seed: int = 0) -> Trace:
    """Returns the trace with ``factor`` times the request rate, over the same time.

    Each request is repeated, at times within COPY_JITTER_S seconds of its own. A copy shares no prefix with the others
    except common system prompts. A fraction is a random part of the requests. Raises ValueError unless factor > 0.
    """
    if not factor > 0:
        raise ValueError(f"factor must be positive, got {factor}")
    if factor == 1:
        return trace
    random = np.random.default_rng([seed, 1])
    whole = math.floor(factor)
    copies = np.full(len(trace), whole) + (random.random(len(trace)) < factor - whole)
    row = np.repeat(np.arange(len(trace)), copies)
    copy = np.arange(len(row)) - np.repeat(np.cumsum(copies) - copies, copies)
    moved = random.uniform(-COPY_JITTER_S, COPY_JITTER_S, len(row)) * (copy > 0)
    arrival = np.abs(trace.arrival[row] + moved)
    arrival = np.where(arrival > trace.duration, 2 * trace.duration - arrival, arrival)
    order = np.argsort(arrival, kind="stable")
    row, copy = row[order], copy[order]
    return replace(
        trace,
        name=f"{trace.name} x {factor:g}",
        arrival=arrival[order],
        prompt=trace.prompt[row],
        output=trace.output[row],
        row=row,
        copy=copy,
        priority=None if trace.priority is None else trace.priority[row],
    )


def cut(trace: Trace, seconds: float) -> Trace:
    """Returns the requests of the first ``seconds`` of the trace. Raises ValueError if there are none."""
    count = int(np.searchsorted(trace.arrival, seconds))
    if not count:
        raise ValueError(f"no request arrives in the first {seconds:g} s")
    return replace(first(trace, count), duration=min(seconds, trace.duration))


def first(trace: Trace, count: int) -> Trace:
    """Returns the first ``count`` requests of the trace, or all if it has fewer. Its duration stays."""
    return replace(
        trace,
        arrival=trace.arrival[:count],
        prompt=trace.prompt[:count],
        output=trace.output[:count],
        row=None if trace.row is None else trace.row[:count],
        copy=None if trace.copy is None else trace.copy[:count],
        priority=None if trace.priority is None else trace.priority[:count],
    )


def with_batch_share(trace: Trace, share: float, seed: int = 0) -> Trace:
    """Returns the trace with a random part ``share`` of its requests, 0 to 1, marked as batch work."""
    chosen = np.random.default_rng([seed, 2]).random(len(trace)) < share
    return replace(trace, priority=chosen.astype(np.int8))
