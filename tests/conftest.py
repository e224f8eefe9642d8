"""What holds for all tests."""

from __future__ import annotations

import os

import torch
from hypothesis import settings

from tests.leftovers import mark, pytest_sessionfinish

__all__ = ["pytest_sessionfinish"]

if not torch.cuda.is_available():
    # Before anybody imports triton, as transformers does, whichever folder comes first: it looks once, when its own
    # functions are made.
    os.environ["TRITON_INTERPRET"] = "1"
mark()
# How long an example takes says what else the machine does.
settings.register_profile("manta", deadline=None)
settings.load_profile("manta")
