"""The settings of deployments of small models. ``ReplicaSettings``: those of the replicas. ``ServiceConfig`` adds those
of the routers' calls to them, and ``ModelServiceConfig`` those of batches."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from safety.encoder.precision import Precision


class Settings(BaseModel):
    """The base of all settings: immutable, unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ReplicaSettings(Settings):
    """The settings of the replicas of a deployment."""

    replicas: int = Field(1, ge=1)
    """Replicas. Each computes on one thread."""
    num_cpus: float = Field(1.0, ge=0)
    """CPU cores that Ray reserves for each replica. 0 if the service shares a small machine."""
    health_check_period_s: float = Field(10.0, gt=0)
    """Seconds between Serve's health checks of a replica. After three failures in a row Serve replaces the replica."""


class ServiceConfig(ReplicaSettings):
    """The settings of a deployment that routers call, and of these calls."""

    max_faults: int = Field(5, ge=1)
    """Failed calls in a row after which the deployment is not asked for a while (circuit breaker)."""
    open_s: float = Field(1.0, gt=0)
    """Seconds until it is asked again after that; twice as long after each further failure, up to max_open_s."""
    max_open_s: float = Field(10.0, gt=0)
    """The longest time for which it is not asked, in seconds. It is used again at most this long after it is back."""


class ModelServiceConfig(ServiceConfig):
    """The settings of a deployment that computes texts in batches, and of the routers' calls to it."""

    precision: Precision = Precision.INT8
    """int8 takes a quarter of float32's memory for weights, and two thirds of its time without VNNI."""
    max_batch_tokens: int = Field(256, ge=1)
    """The most tokens in a batch, padding included. A larger batch takes more memory, leaves the cache of a core, which
    costs each text a tenth, and later callers wait longer for it."""
    deadline_ms: int = Field(2000, ge=1)
    """Milliseconds that a call may take, the wait for batches under way included."""
    deadline_ms_per_1000_characters: int = Field(300, ge=0)
    """Milliseconds added for each 1,000 characters of a call. With one deadline for all, every long text would be
    late. 1,000 characters of English take about 100 ms on a core without VNNI, and 300 on a busy one."""

    def deadline_s(self, characters: int) -> float:
        """Returns the deadline in seconds of a call with texts of ``characters`` characters in all."""
        return (self.deadline_ms + self.deadline_ms_per_1000_characters * characters / 1000) / 1000
