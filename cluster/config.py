"""The one config tree. ``serve run deployments/*.yaml`` passes an application's ``args`` here; unknown keys are
refused.

Each floor keeps the settings of its own rooms beside its code; this module puts them together.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from engine.config import EngineConfig
from router.config import RouterConfig

TierName = Literal["fast", "balanced", "frontier"]


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TierConfig(Settings):
    """One tier: its engine and how many actors run it where."""

    engine: EngineConfig
    replicas: int = Field(1, ge=1)
    """Actors, each with the whole model; with engine.tensor_parallel, that of its first process."""
    num_cpus: float = Field(1.0, ge=0)
    """CPU cores that Ray sets aside per process of a replica; 0 when several share a small machine."""
    num_gpus: float = Field(0.0, ge=0)
    """GPUs per process of a replica: 1 with engine.tensor_parallel, which has as many processes as it says."""
    resources: dict[str, float] = Field(default_factory=dict)
    """Custom Ray resources per replica, to place a tier on a node pool."""
    drain_timeout_s: float = Field(600.0, gt=0)
    """Seconds that a replica told to stop may take to finish its streams; idle ones stop at once. Less than
    router.request_timeout_s may cut the longest answers."""
    health_check_period_s: float = Field(10.0, gt=0)
    """Seconds between checks that the engine makes progress; three failures in a row replace the replica."""

    @model_validator(mode="after")
    def _can_be_placed(self) -> Self:
        if self.engine.tensor_parallel > 1:
            if self.engine.device == "cuda" and self.num_gpus != 1:
                raise ValueError("num_gpus must be 1 with engine.tensor_parallel: each process has a GPU of its own")
            if self.num_cpus == self.num_gpus == 0:
                raise ValueError("num_cpus must be above 0 with engine.tensor_parallel: Ray places no empty bundles")
        return self


class IngressConfig(Settings):
    """The Router deployment: HTTP in, stream out."""

    replicas: int = Field(1, ge=1)
    """Actors. Two or more on different nodes survive the loss of one."""
    num_cpus: float = Field(1.0, ge=0)
    """CPU cores that Ray sets aside per replica; the event loop uses one."""
    max_replicas_per_node: int | None = Field(None, ge=1)
    """Spreads routers over nodes; None leaves it to Ray."""
    drain_timeout_s: float = Field(600.0, gt=0)
    """Seconds that a router told to stop may take to finish its streams; see the tiers'."""
    max_ongoing_requests: int = Field(8192, ge=1)
    """Requests per replica beyond which Serve itself refuses. Kept above the router's own limit, whose refusal is a
    clear error in OpenAI's shape; Serve's is not."""


class PlacementConfig(Settings):
    """Choosing a replica within a tier."""

    affinity_weight: float = Field(2.0, ge=0)
    """Queued requests that a full prefix match is worth. 0 places by load alone."""
    wait_s: float = Field(15.0, ge=0)
    """Seconds that a request waits for the tier to have a ready replica, as after a crash, before it gets a 503."""
    reader_buffer_tokens: int = Field(4096, ge=1)
    """Deltas that a slow client may leave unread before its request is ended."""


class MantaConfig(Settings):
    """Everything that ``cluster.app:build`` needs."""

    tiers: dict[TierName, TierConfig] = Field(min_length=1)
    """By name, weakest first."""
    router: RouterConfig
    ingress: IngressConfig = IngressConfig()
    placement: PlacementConfig = PlacementConfig()

    @model_validator(mode="after")
    def _limits_in_order(self) -> Self:
        if self.router.max_concurrent_requests >= self.ingress.max_ongoing_requests:
            raise ValueError("ingress.max_ongoing_requests must exceed router.max_concurrent_requests")
        return self
