"""Whether a device can compute any more.

After some errors of a kernel, such as an illegal access, a failed assertion or a memory fault, every later operation of
the process on that card fails (CUDA's sticky errors). Others end one operation alone: a card without free memory, or
a kernel that cannot be launched.
"""

from __future__ import annotations

import torch

from engine.errors import EngineDeadError


def check_device(device: torch.device) -> None:
    """Waits for all work on ``device``, if it is a GPU. Raises EngineDeadError if the process cannot use it any
    more."""
    if device.type != "cuda":
        return
    try:
        torch.cuda.synchronize(device)
    except RuntimeError as error:
        raise EngineDeadError(f"The GPU cannot be used any more: {type(error).__name__}.") from error
