"""``GGUFFile``: the weights and the metadata of a Llama decoder in a GGUF file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from gguf.quants import dequantize
from numpy.typing import NDArray

from safety.decoder.architecture import Architecture, UnsupportedDecoderError
from safety.decoder.gguf_header import StoredTensor, read_header
from safety.decoder.metadata import Metadata
from safety.encoder.quantised_matrix import QuantisedMatrix, quantised, stacked

BLOCK_ROWS = 2048
"""The rows of a matrix that are dequantised at a time: in float32 the embeddings of SmolLM2 have 113 MB."""

TENSORS = {"embed_tokens": "token_embd", "norm": "output_norm"}
LAYER_TENSORS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""The names of tensors in GGUF files by those of Hugging Face's ``LlamaModel``, without the layer and ``.weight``."""


class GGUFFile:
    """An open file. It implements ``Tensors``, with the names and the order of rows of Hugging Face's ``LlamaModel``.
    Weights stay in the file until they are asked for. ``metadata`` has its keys."""

    def __init__(self, path: Path) -> None:
        """Raises OSError, and UnsupportedDecoderError for a file of another kind."""
        self._path = path
        try:
            header = read_header(np.memmap(path, np.uint8, "r"))
        except ValueError as error:
            raise UnsupportedDecoderError(f"{path} is no GGUF file: {error}") from error
        self.metadata = Metadata(header.values)
        self._tensors = header.tensors
        if (family := self.metadata.value("general.architecture", str)) != "llama":
            raise UnsupportedDecoderError(f"{path}: general.architecture must be llama, not {family}")

    def architecture(self) -> Architecture:
        """Returns the sizes of the decoder. Raises UnsupportedDecoderError for a missing size, and for rotary positions
        that are scaled or over a part of a head."""
        value = self.metadata.value
        heads = value("llama.attention.head_count", int)
        architecture = Architecture(
            layers=value("llama.block_count", int),
            hidden=value("llama.embedding_length", int),
            heads=heads,
            kv_heads=value("llama.attention.head_count_kv", int, heads),
            intermediate=value("llama.feed_forward_length", int),
            vocabulary=len(value("tokenizer.ggml.tokens", list)),
            max_tokens=value("llama.context_length", int),
            rope_theta=value("llama.rope.freq_base", float, 10000.0),
            norm_epsilon=value("llama.attention.layer_norm_rms_epsilon", float),
        )
        rotated = value("llama.rope.dimension_count", int, architecture.head_size)
        scaling = value("llama.rope.scaling.type", str, "none")
        if rotated != architecture.head_size or scaling != "none" or "rope_freqs.weight" in self._tensors:
            raise UnsupportedDecoderError(f"{self._path}: rotary positions are over whole heads and not scaled")
        return architecture

    def dense(self, name: str) -> NDArray[np.float32]:
        """Returns a tensor in float32. Raises UnsupportedDecoderError if there is none with this name, and for a type
        of weights that the gguf package does not read."""
        return np.concatenate(list(self._blocks(name))).reshape(self._tensor(name).shape)

    def quantised(self, name: str, max_code: int) -> QuantisedMatrix:
        """Returns a matrix quantised by row, with codes from -``max_code`` to ``max_code``. Raises
        UnsupportedDecoderError as ``dense`` does."""
        return stacked([quantised(block, max_code) for block in self._blocks(name)])

    def _blocks(self, name: str) -> Iterator[NDArray[np.float32]]:
        """Yields the rows of a tensor in float32, some at a time."""
        tensor = self._tensor(name)
        order = self._row_order(name, tensor.shape[0])
        for start in range(0, len(order), BLOCK_ROWS):
            rows = tensor.rows[order[start : start + BLOCK_ROWS]]
            try:
                yield dequantize(rows, tensor.kind).astype(np.float32, copy=False)
            except NotImplementedError as error:
                raise UnsupportedDecoderError(f"{name}: {error}") from error

    def _tensor(self, name: str) -> StoredTensor:
        tensor = self._tensors.get(_stored_name(name))
        if tensor is None:
            raise UnsupportedDecoderError(f"{self._path} has no tensor for {name}")
        return tensor

    def _row_order(self, name: str, rows: int) -> NDArray[np.int64]:
        """Returns the index in the file of each row. llama.cpp rotates neighbours, Hugging Face the halves of a head;
        so the rows of queries and keys are in another order in the file."""
        order = np.arange(rows)
        if not name.endswith(("q_proj.weight", "k_proj.weight")):
            return order
        sizes = self.architecture()
        heads = sizes.heads if name.endswith("q_proj.weight") else sizes.kv_heads
        if rows != heads * sizes.head_size:
            raise UnsupportedDecoderError(f"{name} has {rows} rows, not {heads} heads of {sizes.head_size}")
        return order.reshape(heads, -1, 2).swapaxes(1, 2).reshape(-1)


def _stored_name(name: str) -> str:
    """Returns the name in a GGUF file of a tensor of ``LlamaModel``; the name itself if it has none."""
    stem = name.removesuffix(".weight")
    if stem in TENSORS:
        return f"{TENSORS[stem]}.weight"
    _, _, rest = stem.partition("layers.")
    layer, _, part = rest.partition(".")
    return f"blk.{layer}.{LAYER_TENSORS[part]}.weight" if part in LAYER_TENSORS else name
