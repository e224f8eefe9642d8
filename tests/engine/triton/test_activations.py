"""The gated activations in Triton are torch's."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from engine.kernels.reference import ReferenceKernels
from engine.kernels.triton.activations import gated
from engine.model.spec import Activation

DTYPES = [torch.float32, torch.float16] + ([torch.bfloat16] if torch.cuda.is_available() else [])
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered in exp:RuntimeWarning")  # of the interpreter


@pytest.mark.parametrize("kind", get_args(Activation))
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 40, 1024, 1500])
def test_products_are_the_references(device: torch.device, kind: Activation, dtype: torch.dtype, size: int) -> None:
    gate_up = (torch.randn(3, 2 * size, generator=torch.Generator().manual_seed(size)) * 4).to(dtype)

    found = gated(gate_up.to(device), kind)

    step = torch.finfo(dtype).eps
    torch.testing.assert_close(found.cpu(), ReferenceKernels().gated(gate_up, kind), rtol=4 * step, atol=4e-6)


@pytest.mark.parametrize("kind", get_args(Activation))
def test_far_ends_are_zero_and_the_gate_itself(device: torch.device, kind: Activation) -> None:
    gates = torch.tensor([-80.0, -30.0, 0.0, 30.0, 80.0])

    found = gated(torch.cat((gates, torch.ones(5))).unsqueeze(0).to(device), kind)

    torch.testing.assert_close(found.cpu(), gates.clamp(min=0).unsqueeze(0), rtol=0, atol=1e-9)


def test_rows_may_lie_apart(device: torch.device) -> None:
    whole = torch.randn(4, 50, generator=torch.Generator().manual_seed(0))

    found = gated(whole.to(device)[:, :40], "silu")

    torch.testing.assert_close(found.cpu(), ReferenceKernels().gated(whole[:, :40].clone(), "silu"))
