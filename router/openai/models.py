"""The wire format of /v1/models."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def model_fields(name: str, created: int) -> dict[str, Any]:
    """OpenAI's model object. ``created`` in seconds since the epoch."""
    return {"id": name, "object": "model", "created": created, "owned_by": "manta"}


def model_list(names: Iterable[str], created: int) -> dict[str, Any]:
    """OpenAI's list of models."""
    return {"object": "list", "data": [model_fields(name, created) for name in names]}
