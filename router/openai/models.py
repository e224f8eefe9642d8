"""The model objects of /v1/models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from router.ports.tier_backend import TierDescription, TierSnapshot


def model_list(
    names: Mapping[str, str], tiers: Sequence[TierDescription], snapshots: Sequence[TierSnapshot], created: int
) -> dict[str, Any]:
    """OpenAI's list of models. ``names`` gives the tier behind each name; ``created`` in seconds since the epoch."""
    roots = {tier.name: tier.model for tier in tiers}
    lengths = {snapshot.name: snapshot.context_length for snapshot in snapshots}
    data = [
        model_fields(name, created, roots.get(target, target), _context_length(target, names, lengths))
        for name, target in names.items()
    ]
    return {"object": "list", "data": data}


def model_fields(name: str, created: int, root: str, context_length: int | None) -> dict[str, Any]:
    """OpenAI's model object, with vLLM's ``root`` (the model behind the name) and ``context_length`` in tokens."""
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "manta",
        "root": root,
        "context_length": context_length,
    }


def _context_length(target: str, names: Mapping[str, str], lengths: Mapping[str, int | None]) -> int | None:
    """That of a tier; of what chooses among tiers the smallest: a request that fits it is served by any of them."""
    if target in lengths:
        return lengths[target]
    known = [length for name, length in lengths.items() if length is not None and name in names]
    return min(known, default=None)
