"""``SemanticCacheConfig``: the branch ``cache`` of the config tree."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from cluster.model_service.config import ServiceConfig

MIB = 1024 * 1024


class SemanticCacheConfig(ServiceConfig):
    """The settings of the deployment ``SemanticCache``, and of the routers' calls to it. The deployment needs
    ``embedder`` and a Redis in ``state``. The settings in ``router.cache`` decide which answers are stored, and for how
    long."""

    pair_model: Path
    """The directory with the model of the second stage. It must be on the nodes of the replicas, and where the
    application is built."""
    optional: bool = False
    """Whether the service starts without the semantic stage where its model is missing."""
    deadline_ms: int = Field(150, ge=1)
    """Milliseconds that a look-up may take. A later one is a miss, so this is the most that the cache delays a request
    that it does not answer."""
    candidates: int = Field(5, ge=1, le=50)
    """The most stored questions that the second stage compares with a question. Each takes about 13 ms
    of a core."""
    min_similarity: float = Field(0.6, ge=-1, le=1)
    """The cosine below which a stored question is not compared."""
    tenant_entries: int = Field(100_000, ge=1)
    """The most questions of a tenant in the index. The one that was used least recently makes room."""
    tenant_bytes: int = Field(128 * MIB, ge=MIB)
    """The most bytes of a tenant's part of the index, about 1,000 for a question of 384 dimensions."""
    max_bytes: int = Field(512 * MIB, ge=MIB)
    """The most bytes of the index of a replica. The tenant with the most bytes makes room."""
    recent_questions: int = Field(1024, ge=0)
    """Questions whose vectors are kept for a while, about 1 kB each: the answer to one that missed is stored soon."""
