"""A grown model gives the answers of the one it grew from."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaForCausalLM

from deployments.models.training.growth import grow
from deployments.models.training.shapes import SHAPES, llama_config


@pytest.mark.parametrize("tier", [tier for tier, shape in SHAPES.items() if shape.grown_from])
def test_growing_changes_no_logit(tier: str) -> None:
    torch.manual_seed(0)
    small = LlamaForCausalLM(llama_config(SHAPES[SHAPES[tier].grown_from or ""], 1, 2, 0)).eval()
    large = LlamaForCausalLM(llama_config(SHAPES[tier], 1, 2, 0)).eval()
    with torch.no_grad():
        for weight in small.parameters():
            weight.mul_(3.0)  # far from the initial values, where much would go unnoticed
        grow(small, large)
        tokens = torch.randint(6, 4096, (2, 40))

        # RMSNorm's epsilon weighs a little more beside a mean over channels that are still empty.
        torch.testing.assert_close(large(tokens).logits, small(tokens).logits, rtol=0, atol=0.02)
