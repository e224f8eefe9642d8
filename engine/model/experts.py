"""A mixture of experts: each token goes through the few experts with the highest router scores, and their outputs are
added with weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.model.spec import ExpertSpec
from engine.model.weights import ExpertWeights


def route(scores: Tensor, spec: ExpertSpec) -> tuple[Tensor, Tensor]:
    """Returns the weights [tokens, per_token], in the dtype of ``scores`` [tokens, experts], and the numbers [tokens,
    per_token] int64, of each token's experts.

    The softmax is over all experts, in float32; then the largest are taken (Mixtral, Jiang et al. 2024; Qwen 3).
    """
    shares, chosen = scores.softmax(-1, dtype=torch.float32).topk(spec.per_token, -1)
    if spec.normalised:
        shares = shares / shares.sum(-1, keepdim=True)
    return shares.to(scores.dtype), chosen


def mix(x: Tensor, weights: ExpertWeights, activate: Callable[[Tensor], Tensor]) -> Tensor:
    """Returns the experts' output for ``x`` [tokens, hidden], in the same shape.

    Tokens are sorted by expert, so that each expert multiplies all its tokens at once. A token's outputs are summed
    from the likeliest expert to the least likely, an order that does not depend on other tokens.
    """
    shares, chosen = route(F.linear(x, weights.router), weights.spec)
    order = chosen.flatten().argsort(stable=True)
    loads = chosen.flatten().bincount(minlength=weights.spec.count).tolist()
    gathered = x.index_select(0, order.div(weights.spec.per_token, rounding_mode="floor"))
    outputs = torch.empty_like(gathered)
    row = 0
    for expert, load in enumerate(loads):
        if load:
            inner = activate(F.linear(gathered[row : row + load], weights.gate_up[expert]))
            outputs[row : row + load] = F.linear(inner, weights.down[expert])
            row += load
    unsorted = torch.empty_like(outputs).index_copy_(0, order, outputs)
    return (unsorted.view(*shares.shape, -1) * shares.unsqueeze(-1)).sum(1)
