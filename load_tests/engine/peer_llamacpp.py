"""Tokens a second of llama.cpp, for ``peers``; runs in an environment that has llama-cpp-python. The cases are those of
``throughput``.

    L/bin/python -m load_tests.engine.peer_llamacpp MODEL.gguf 1 8 32 8:512 1:2048 1:8192
"""

from __future__ import annotations

import argparse
import ctypes
import os
import sys
from typing import Any

import llama_cpp  # type: ignore[import-not-found, unused-ignore]
import numpy as np

from load_tests.engine.cases import Case, Generate, Prompts, add_arguments, bench


@llama_cpp.llama_log_callback  # type: ignore[misc, untyped-decorator, unused-ignore]
def silent(level: int, text: bytes, data: int) -> None:
    """Drops what llama.cpp logs."""


class Batch:
    """Tokens of one call. The arrays are filled whole: a loop over tokens in Python would count as llama.cpp's time."""

    def __init__(self, size: int, sequences: int) -> None:
        self._tokens, self._positions = np.zeros(size, np.int32), np.zeros(size, np.int32)
        self._wanted, self._counts = np.zeros(size, np.int8), np.ones(size, np.int32)
        self._numbers, self._pointers = np.arange(sequences, dtype=np.int32), np.zeros(size, np.uintp)

    def filled(self, tokens: Any, positions: Any, sequences: Any, wanted: Any) -> Any:
        """The call with these arrays, an element for each token; ``wanted``: whether its logits are."""
        count = len(tokens)
        self._tokens[:count], self._positions[:count], self._wanted[:count] = tokens, positions, wanted
        self._pointers[:count] = self._numbers.ctypes.data + sequences * self._numbers.itemsize
        batch = llama_cpp.llama_batch()
        batch.n_tokens = count
        batch.token, batch.pos = _pointer(batch, "token", self._tokens), _pointer(batch, "pos", self._positions)
        batch.n_seq_id, batch.seq_id = (
            _pointer(batch, "n_seq_id", self._counts),
            _pointer(batch, "seq_id", self._pointers),
        )
        batch.logits = _pointer(batch, "logits", self._wanted)
        return batch


def _pointer(batch: Any, field: str, array: Any) -> Any:
    """The address of ``array`` as the type that ``field`` of ``batch`` has."""
    return ctypes.cast(array.ctypes.data, dict(batch._fields_)[field])


class Context:
    """Keys and values of one case, and the calls that fill them."""

    def __init__(self, model: Any, case: Case, options: argparse.Namespace) -> None:
        params = llama_cpp.llama_context_default_params()
        own = -(-(case.prompt + case.answer) // 256) * 256  # llama.cpp rounds up to this itself
        params.n_ctx = own * case.requests
        params.n_batch, params.n_ubatch = options.batch_tokens, options.micro_batch_tokens
        params.n_seq_max = case.requests
        params.n_threads = params.n_threads_batch = options.threads
        params.kv_unified = options.unified
        self._context = llama_cpp.llama_init_from_model(model, params)
        if not self._context:
            raise RuntimeError(f"llama.cpp makes no context for {case}")
        self._vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
        self._batch_tokens = options.batch_tokens
        self._batch = Batch(options.batch_tokens, case.requests)

    def generate(self, prompts: Prompts, answer: int) -> int:
        """The prompts in calls of ``n_batch`` tokens, then a token of each sequence per call."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), False)
        count, length = len(prompts), len(prompts[0])
        latest = self._read(np.array(prompts, np.int32))
        for at in range(length, length + answer - 1):
            self._call(latest, at, np.arange(count), True)
            latest = [self._largest(row) for row in range(count)]
        return count * answer

    def close(self) -> None:
        """Frees its memory."""
        llama_cpp.llama_free(self._context)

    def _read(self, prompts: Any) -> list[int]:
        """Computes ``prompts`` [sequences, tokens]. Returns the token after each."""
        sequences, positions = (each.ravel() for each in np.indices(prompts.shape))
        tokens, last, found = prompts.ravel(), positions == prompts.shape[1] - 1, []
        for start in range(0, len(tokens), self._batch_tokens):
            part = slice(start, start + self._batch_tokens)
            self._call(tokens[part], positions[part], sequences[part], last[part])
            found += [self._largest(int(row)) for row in np.flatnonzero(last[part])]
        return found

    def _call(self, tokens: Any, positions: Any, sequences: Any, wanted: Any) -> None:
        if llama_cpp.llama_decode(self._context, self._batch.filled(tokens, positions, sequences, wanted)):
            raise RuntimeError("llama_decode failed")

    def _largest(self, row: int) -> int:
        logits = llama_cpp.llama_get_logits_ith(self._context, row)
        return int(np.argmax(np.ctypeslib.as_array(logits, (self._vocab,))))


class Contexts:
    """The context of the latest case."""

    def __init__(self, model: Any, options: argparse.Namespace) -> None:
        self._model, self._options = model, options
        self._latest: Context | None = None

    def prepare(self, case: Case) -> Generate:
        """Makes that of ``case``, and ends the one before it."""
        if self._latest is not None:
            self._latest.close()
        self._latest = Context(self._model, case, self._options)
        return self._latest.generate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--batch-tokens", type=int, default=2048, help="of a call (n_batch)")
    parser.add_argument("--micro-batch-tokens", type=int, default=512, help="of a pass over the weights (n_ubatch)")
    parser.add_argument("--unified", action="store_true", help="one buffer of keys and values for all sequences")
    options = parser.parse_args()
    llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(options.model.encode(), llama_cpp.llama_model_default_params())
    if not model:
        raise SystemExit(f"llama.cpp cannot load {options.model}")
    print(llama_cpp.llama_print_system_info().decode(), file=sys.stderr)
    bench("llama.cpp", options, Contexts(model, options).prepare)


if __name__ == "__main__":
    main()
