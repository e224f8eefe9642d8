"""Perplexity of a GGUF model on a text, in several formats of this engine and by llama.cpp.

    python -m load_tests.engine.gguf_perplexity MODEL.gguf --text TEXT --llama L/bin/python

The text is cut into windows of equal length, each read from its own start; its first token is not counted. Both sides
read the same tokens. The figure of the file's own weights (weight_dtype auto) is what llama.cpp's is compared with; the
other formats are compared with it. L has llama-cpp-python; without it only the formats are compared.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from engine import Engine, SamplingParams
from engine.model.source import open_model
from engine.token_id_tokenizer import load_tokenizer
from load_tests.engine.unpacked import unpacked_engine

LLAMA = """
import json, sys
import numpy as np
from llama_cpp import Llama
windows = json.load(sys.stdin)
size = max(map(len, windows))
model = Llama(sys.argv[1], n_ctx=size, n_batch=size, logits_all=True, n_threads=2, n_threads_batch=2, verbose=False)
nats = 0.0
for window in windows:
    model.reset()
    model.eval(window)
    rows = model.scores[: len(window) - 1].astype(np.float64)
    largest = rows.max(1, keepdims=True)
    total = np.log(np.exp(rows - largest).sum(1)) + largest[:, 0]
    nats += float((total - rows[np.arange(len(rows)), window[1:]]).sum())
print(nats)
"""
ROOT = Path(__file__).resolve().parents[2]
TEXT = ROOT.parent / "shared" / "data" / "eval" / "wikitext2_valid.txt.gz"
SCORED = SamplingParams(temperature=0, max_tokens=0, prompt_logprobs=0)
FORMATS: dict[str, dict[str, Any]] = {
    "as stored": {},
    "int8": {"weight_dtype": "int8"},
    "int4": {"weight_dtype": "int4"},
    "unpacked": {},  # all matrices in --dtype before the kernels get them
}


def windows_of(tokens: Sequence[int], size: int) -> list[list[int]]:
    """Whole windows of ``size`` tokens; the rest is left out. Raises ValueError if there is none."""
    found = [list(tokens[start : start + size]) for start in range(0, len(tokens) - size + 1, size)]
    if not found:
        raise ValueError(f"the text has {len(tokens)} tokens, a window {size}")
    return found


def surprise(model: Path, windows: Sequence[list[int]], label: str, settings: dict[str, Any]) -> float:
    """Nats of all tokens but the first of each window, by this engine."""
    settings = {"prefix_caching": False, "kv_cache_tokens": 8 * len(windows[0]), **settings}
    engine = unpacked_engine(model, **settings) if label == "unpacked" else Engine.from_pretrained(model, **settings)
    nats = 0.0
    for window in tqdm(windows, desc=label, unit="window"):
        [answer] = engine.generate([window], SCORED)
        assert answer.prompt_logprobs is not None
        nats -= sum(scored.chosen.logprob for scored in answer.prompt_logprobs[1:])
    engine.close()
    return nats


def surprise_of_llama(python: str, model: Path, windows: Sequence[list[int]]) -> float:
    """The same by llama.cpp. Raises CalledProcessError with its errors if it fails."""
    done = subprocess.run(
        [python, "-c", LLAMA, str(model)], input=json.dumps(windows), capture_output=True, text=True, check=False
    )
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
    done.check_returncode()
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--text", type=Path, default=TEXT, help="plain or gzip (default: WikiText-2 in ../shared)")
    parser.add_argument("--bytes", type=int, default=100_000, help="of the text (default: %(default)s)")
    parser.add_argument("--window", type=int, default=512, help="tokens (default: %(default)s)")
    parser.add_argument("--dtype", default="bfloat16", help="of activations (default: %(default)s)")
    parser.add_argument("--formats", nargs="*", choices=FORMATS, default=["as stored", "int8", "int4"])
    parser.add_argument("--llama", help="a Python that has llama-cpp-python")
    options = parser.parse_args()
    opened = gzip.open if options.text.suffix == ".gz" else open
    with opened(options.text, "rb") as file:
        text = file.read(options.bytes).decode("utf-8", "ignore")
    windows = windows_of(load_tokenizer(open_model(options.model)).encode(text), options.window)
    counted = sum(len(window) - 1 for window in windows)
    usual = 0.0
    for label in options.formats:
        began = time.perf_counter()
        nats = surprise(options.model, windows, label, {"dtype": options.dtype, **FORMATS[label]})
        perplexity = math.exp(nats / counted)
        usual = usual or perplexity
        print(
            f"{label}: perplexity {perplexity:.4f} ({perplexity / usual - 1:+.3%}), {time.perf_counter() - began:.0f} s"
        )
    if options.llama:
        perplexity = math.exp(surprise_of_llama(options.llama, options.model, windows) / counted)
        print(f"llama.cpp: perplexity {perplexity:.4f}; as stored is {usual / perplexity - 1:+.3%} of it")
    print(f"over {counted:,} tokens in {len(windows)} windows of {options.window}")


if __name__ == "__main__":
    main()
