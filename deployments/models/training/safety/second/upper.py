"""``Upper``: the layers above the trunk, which are trained, with a linear head for all labels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRMSNorm, LlamaRotaryEmbedding

from deployments.models.training.safety.labels import LABELS
from deployments.models.training.safety.second.trunk import llama_config
from safety.decoder.gguf_file import GGUFFile

RARE = -2.0  # the bias of a label before training, in logits


class Upper(nn.Module):
    """The layers ``first`` to ``last``, the latter not included, of a GGUF file. The names of its tensors are those of
    Hugging Face's ``LlamaModel``, but for ``head``."""

    def __init__(self, file: GGUFFile, first: int, last: int) -> None:
        """Raises UnsupportedDecoderError."""
        super().__init__()
        config = llama_config(file)
        config._attn_implementation = "eager"  # a step takes two thirds of the time that fused attention needs
        self.layers = nn.ModuleDict({str(layer): LlamaDecoderLayer(config, layer) for layer in range(first, last)})
        self.norm = LlamaRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.head = nn.Linear(2 * config.hidden_size, len(LABELS))
        self._rotary = LlamaRotaryEmbedding(config)
        self.load_state_dict(
            {name: torch.from_numpy(file.dense(name)) for name in self.state_dict() if not name.startswith("head")},
            strict=False,
        )
        nn.init.zeros_(self.head.weight)
        nn.init.constant_(self.head.bias, RARE)

    def forward(self, states: Tensor, lengths: Tensor) -> Tensor:
        """Returns logits, float32 [windows, labels].

        ``states`` [windows, tokens, hidden] are those of the trunk, the prefix ahead, padded on the right, which a
        causal layer does not see. ``lengths`` [windows] are without the prefix, the end included.
        """
        positions = torch.arange(states.shape[1])[None]
        angles = self._rotary(states, positions)
        later = torch.full((states.shape[1],) * 2, -torch.inf).triu(1)[None, None]
        for layer in self.layers.values():
            states = layer(states, position_embeddings=angles, attention_mask=later, position_ids=positions)
        ahead = states.shape[1] - int(lengths.max())
        own = self.norm(states)[:, ahead:].float()
        text = (torch.arange(own.shape[1])[None] < lengths[:, None] - 1).float()
        mean = (own * text[:, :, None]).sum(dim=1) / text.sum(dim=1, keepdim=True).clamp(min=1)
        last = own[torch.arange(len(own)), lengths - 1]
        return functional.linear(torch.cat([mean, last], dim=1), self.head.weight, self.head.bias)
