"""Models with random weights, made on the device: only their sizes matter."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import models
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from engine.kernels.triton.attention_metadata import PagedPlan
from engine.kernels.triton.kernels import TritonKernels
from engine.model.decoder import Decoder
from engine.model.spec import ModelSpec
from engine.model.weights import LayerWeights, MLPWeights, ModelWeights, NormWeights
from engine.tokenizer import Tokenizer
from load_tests.gpu.figure import Bench


def random_weights(spec: ModelSpec, bench: Bench) -> ModelWeights:
    """Of a dense model whose norms have no bias and are before attention and MLP only, as Llama and Qwen3 have them."""
    hidden, inner, size = spec.hidden_size, spec.intermediate_size, spec.head_dim

    def matrix(outputs: int, inputs: int) -> Tensor:
        made = torch.empty(outputs, inputs, dtype=bench.dtype, device=bench.device)
        return made.normal_(std=inputs**-0.5)

    def ones(*shape: int) -> Tensor:
        return torch.ones(shape, dtype=torch.float32 if spec.norm.wide else bench.dtype, device=bench.device)

    def layer() -> LayerWeights:
        both = spec.num_heads + spec.num_kv_heads
        return LayerWeights(
            before_attention=NormWeights(ones(hidden), None),
            qkv=matrix((both + spec.num_kv_heads) * size, hidden),
            qkv_bias=None,
            head_norm=ones(both, size) if spec.head_norm == "head" else None,
            output=matrix(hidden, spec.num_heads * size),
            output_bias=None,
            after_attention=None,
            before_mlp=NormWeights(ones(hidden), None),
            mlp=MLPWeights(matrix(2 * inner, hidden), None, matrix(hidden, inner), None),
            after_mlp=None,
        )

    embedding = matrix(spec.vocab_size, hidden)
    head = embedding if spec.tied_embeddings else matrix(spec.vocab_size, hidden)
    layers = tuple(layer() for _ in range(spec.num_layers))
    return ModelWeights(embedding, None, layers, NormWeights(ones(hidden), None), head)


def read_bytes(weights: ModelWeights) -> int:
    """Bytes of all matrices that a step reads, of their own dtype."""
    total = 0
    for layer in weights.layers:
        assert isinstance(layer.mlp, MLPWeights)
        total += sum(matrix.nbytes for matrix in (layer.qkv, layer.output, layer.mlp.gate_up, layer.mlp.down))
    return total + weights.head.nbytes


def decoder_of(spec: ModelSpec, weights: ModelWeights, bench: Bench, deterministic: bool) -> Decoder[PagedPlan]:
    """The model on Triton's kernels."""
    return Decoder(spec, weights, TritonKernels(bench.device, deterministic))


def small_tokenizer() -> Tokenizer:
    """One that knows two tokens: prompts are given as ids, and what answers say is nobody's business."""
    words = models.WordLevel({"<|end|>": 0, "<unk>": 1}, unk_token="<unk>")
    hub = PreTrainedTokenizerFast(tokenizer_object=FastTokenizer(words), eos_token="<|end|>")
    return Tokenizer(hub, frozenset({0}))
