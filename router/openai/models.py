"""The response bodies of /v1/models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from router.embedding_request import EMBEDDINGS
from router.ports.embedder import Embedder
from router.ports.tier_backend import TierDescription, TierSnapshot


def model_list(
    names: Mapping[str, str],
    tiers: Sequence[TierDescription],
    snapshots: Sequence[TierSnapshot],
    created: int,
    embedder: Embedder | None = None,
) -> dict[str, Any]:
    """Returns OpenAI's list of models, with an item for each name that requests may give as ``model``.

    ``names`` maps each name to its tier, to ``auto`` or to ``embeddings``. ``created`` is in seconds since the epoch.
    ``embedder`` has the model of the embeddings; None: there are none.
    """
    roots = {tier.name: tier.model for tier in tiers}
    lengths = {snapshot.name: snapshot.context_length for snapshot in snapshots}

    def fields(name: str, target: str) -> dict[str, Any]:
        if target == EMBEDDINGS and embedder is not None:
            return model_fields(name, created, embedder.model, embedder.max_tokens)
        return model_fields(name, created, roots.get(target, target), _context_length(target, names, lengths))

    return {"object": "list", "data": [fields(name, target) for name, target in names.items()]}


def model_fields(name: str, created: int, root: str, context_length: int | None) -> dict[str, Any]:
    """Returns OpenAI's model object with three more members.

    ``created`` is in seconds since the epoch. ``root`` is vLLM's: the model behind the name. ``context_length`` is in
    tokens, null while it is unknown; ``max_model_len`` is the same, as vLLM and SGLang call it.
    """
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "manta",
        "root": root,
        "context_length": context_length,
        "max_model_len": context_length,
    }


def _context_length(target: str, names: Mapping[str, str], lengths: Mapping[str, int | None]) -> int | None:
    """Returns the context length of the tier ``target``; None while no replica has reported it.

    ``auto`` gets the smallest of the tiers that the key may use: a request of that length fits any of them.
    """
    if target in lengths:
        return lengths[target]
    known = [length for name, length in lengths.items() if length is not None and name in names]
    return min(known, default=None)
