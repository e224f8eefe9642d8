"""The tensor names of each architecture in GGUF files (llama.cpp, gguf-py/gguf/constants.py)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from engine.model.names import TensorNames

LLAMA = TensorNames(
    roots=("",),
    embedding="token_embd",
    norm="output_norm",
    head="output",
    layer="blk.{}.",
    qkv=("attn_q", "attn_k", "attn_v"),
    query_norm="attn_q_norm",
    key_norm="attn_k_norm",
    output="attn_output",
    before_attention="attn_norm",
    before_mlp="ffn_norm",
    gate_up=("ffn_gate", "ffn_up"),
    down="ffn_down",
    router="ffn_gate_inp",
    expert_gate_up=("ffn_gate_exps.{}", "ffn_up_exps.{}"),
    expert_down="ffn_down_exps.{}",
)
GEMMA = replace(LLAMA, after_attention="post_attention_norm", after_mlp="post_ffw_norm")
OLMO2 = replace(GEMMA, before_attention=None, before_mlp=None)
PHI3 = replace(LLAMA, qkv=("attn_qkv",), gate_up=("ffn_up",))
GPT2 = replace(LLAMA, positions="position_embd", qkv=("attn_qkv",), gate_up=("ffn_up",))


@dataclass(frozen=True, slots=True)
class Layout:
    """The tensor layout of one architecture. ``interleaved``: the rows of queries and keys that rotary embedding pairs
    are adjacent, as in Meta's Llama; in Hugging Face's checkpoints they are half a head apart."""

    architecture: str  # in Hugging Face's words
    names: TensorNames = LLAMA
    interleaved: bool = False


LAYOUTS: Mapping[str, Layout] = {
    "llama": Layout("LlamaForCausalLM", interleaved=True),
    "qwen2": Layout("Qwen2ForCausalLM"),
    "qwen3": Layout("Qwen3ForCausalLM"),
    "qwen3moe": Layout("Qwen3MoeForCausalLM"),
    "gemma2": Layout("Gemma2ForCausalLM", GEMMA),
    "gemma3": Layout("Gemma3ForCausalLM", GEMMA),
    "phi3": Layout("Phi3ForCausalLM", PHI3),
    "olmo2": Layout("Olmo2ForCausalLM", OLMO2),
    "gpt2": Layout("GPT2LMHeadModel", GPT2),
}
"""By ``general.architecture``. llama is also Mistral, Mixtral and SmolLM."""

MIXTRAL = Layout("MixtralForCausalLM", interleaved=True)
"""That of llama with experts."""
