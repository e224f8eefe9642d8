"""What holds for all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from tests.leftovers import mark, pytest_sessionfinish

__all__ = ["pytest_sessionfinish"]

# Assertions of helper modules too tell what differs. By folders, since ``tests`` itself is imported already.
pytest.register_assert_rewrite(*(f"tests.{each.name}" for each in Path(__file__).parent.iterdir() if each.is_dir()))
if not torch.cuda.is_available():
    # Before anybody imports triton, as transformers does, whichever folder comes first: it looks once, when its own
    # functions are made.
    os.environ["TRITON_INTERPRET"] = "1"
mark()
# How long an example takes says what else the machine does.
settings.register_profile("manta", deadline=None)
settings.load_profile("manta")
