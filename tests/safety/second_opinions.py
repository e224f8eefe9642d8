"""Writes small second opinions for tests: their part of a ``config.json``, their base and their tuned tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
from safetensors.numpy import save_file
from tokenizers.pre_tokenizers import ByteLevel

from safety.decoder.architecture import Architecture
from safety.decoder.gguf_file import LAYER_TENSORS, TENSORS
from tests.safety.artefacts import LABELS, config, write_classifier

CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TOKENS = [*CONTROL, *sorted(ByteLevel.alphabet()), "th", "the"]
BASE = Architecture(
    layers=3,
    hidden=64,
    heads=4,
    kv_heads=2,
    intermediate=64,
    vocabulary=len(TOKENS),
    max_tokens=64,
    rope_theta=10_000.0,
    norm_epsilon=1e-5,
)
SECOND: dict[str, Any] = {
    "file": "second_opinion.safetensors",
    "base": "tiny",
    "layers": 2,
    "tuned_from": 1,
    "prefix": [1, 40],
    "end": 2,
    "max_tokens": 20,
    "gate": 0.4,
}


def second_config(**changes: Any) -> dict[str, Any]:
    """What a ``config.json`` has more, with ``changes`` in its member ``second_opinion``."""
    labels = [
        label | {"second_opinion": {"first": 0.5 + place, "second": 1.5 - 0.5 * place, "offset": place - 0.25}}
        for place, label in enumerate(config()["labels"])
    ]
    return {"second_opinion": SECOND | changes, "labels": labels}


def write_base(path: Path) -> Path:
    """Writes a random decoder, with the tokens of bytes and two merges, as a GGUF file. Returns its path."""
    random = np.random.default_rng(5)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(BASE.layers)
    writer.add_embedding_length(BASE.hidden)
    writer.add_head_count(BASE.heads)
    writer.add_head_count_kv(BASE.kv_heads)
    writer.add_feed_forward_length(BASE.intermediate)
    writer.add_context_length(BASE.max_tokens)
    writer.add_layer_norm_rms_eps(BASE.norm_epsilon)
    writer.add_rope_freq_base(BASE.rope_theta)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3] * len(CONTROL) + [1] * (len(TOKENS) - len(CONTROL)))
    writer.add_token_merges(["t h", "th e"])
    for name, shape in BASE.shapes():
        *layer, part = name.removesuffix(".weight").removeprefix("layers.").split(".", 1)
        stored = f"blk.{layer[0]}.{LAYER_TENSORS[part]}" if layer else TENSORS[part]
        writer.add_tensor(f"{stored}.weight", random.normal(0, 0.3, shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def tuned_tensors() -> dict[str, Any]:
    """The tensors of the file of the second opinion."""
    random = np.random.default_rng(6)
    shapes = {name: shape for name, shape in BASE.shapes() if name.startswith(("layers.1.", "norm"))}
    shapes |= {"head.weight": (len(LABELS), 2 * BASE.hidden), "head.bias": (len(LABELS),)}
    return {name: random.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}


def write_second_opinion(directory: Path, tensors: dict[str, Any] | None = None, **changes: Any) -> Path:
    """Writes a classifier with a second opinion, and its base ``base.gguf``, to ``directory``. Returns it."""
    write_classifier(directory, **second_config(**changes))
    save_file(tuned_tensors() if tensors is None else tensors, directory / SECOND["file"])
    write_base(directory / "base.gguf")
    return directory
