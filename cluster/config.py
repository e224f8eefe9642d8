"""``MantaConfig``: the one tree of settings. ``serve run deployments/*.yaml`` passes an application's ``args`` here;
unknown keys are refused.

Each package keeps its settings beside its code; this module puts them together and checks what one part
says about another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from engine.config import EngineConfig
from router.config import RouterConfig
from router.tiers.choose import AUTO

TIER_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
"""Names travel in URLs, headers and the names of Ray's actors."""

RESERVED_NAMES = frozenset({AUTO, "Router", "SafetyClassifier", "Embedder", "SemanticCache"})
"""No tier is called so: ``auto`` has a tier chosen, and the others are deployments beside the tiers."""


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TierConfig(Settings):
    """Settings of one tier: its engine, the number of its replicas, and the resources that place them."""

    name: str = Field(pattern=TIER_NAME)
    """What clients ask for as ``model``, and the name of the tier's deployment."""
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
    """Seconds that a stopping replica may take to finish its streams; an idle one stops at once. Less than
    router.request_timeout_s may cut the longest answers."""
    health_check_period_s: float = Field(10.0, gt=0)
    """Seconds between checks that the engine makes progress; three failures in a row replace the replica."""

    @property
    def model_name(self) -> str:
        """The name of the model behind the tier, as its engine reports it."""
        return self.engine.name or Path(self.engine.model).name

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
    """Seconds that a stopping router may take to finish its streams; see the tiers'."""
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

    tiers: tuple[TierConfig, ...] = Field(min_length=1)
    """In order of ability, weakest first. A mapping from names to the rest is taken as well."""
    router: RouterConfig
    ingress: IngressConfig = IngressConfig()
    placement: PlacementConfig = PlacementConfig()

    @field_validator("tiers", mode="before")
    @classmethod
    def _from_mapping(cls, tiers: object) -> object:
        return tiers_from_mapping(tiers) if isinstance(tiers, Mapping) else tiers

    @field_validator("tiers")
    @classmethod
    def _with_names_of_their_own(cls, tiers: tuple[TierConfig, ...]) -> tuple[TierConfig, ...]:
        check_tier_names([tier.name for tier in tiers])
        return tiers

    @model_validator(mode="after")
    def _router_knows_the_tiers(self) -> Self:
        check_router_tiers(self.router, [tier.name for tier in self.tiers])
        return self

    @model_validator(mode="after")
    def _limits_in_order(self) -> Self:
        if self.router.max_concurrent_requests >= self.ingress.max_ongoing_requests:
            raise ValueError("ingress.max_ongoing_requests must exceed router.max_concurrent_requests")
        return self


def tiers_from_mapping(tiers: Mapping[Any, Any]) -> list[Any]:
    """Converts a mapping from tier name to tier settings into a list of tiers.

    Raises ValueError if the settings contain a name that differs from their key.
    """
    rows: list[Any] = []
    for name, tier in tiers.items():
        if not isinstance(tier, Mapping):
            raise ValueError(f"{name}: must be a mapping")
        if tier.get("name", name) != name:
            raise ValueError(f"{name}: is called {tier['name']} inside")
        rows.append({"name": name, **tier})
    return rows


def check_tier_names(names: Sequence[str]) -> None:
    """Raises ValueError for a name that is reserved or comes twice."""
    for place, name in enumerate(names):
        if name in RESERVED_NAMES:
            raise ValueError(f"{name}: this name is reserved")
        if name in names[:place]:
            raise ValueError(f"{name}: two tiers have this name")


def check_router_tiers(router: RouterConfig, tiers: Sequence[str]) -> None:
    """Checks what the router's settings say of ``tiers``, weakest first. Raises ValueError, naming the key."""
    if router.auto is not None:
        check_thresholds(router.auto.thresholds or {}, tiers)
    check_aliases(router.aliases, tiers, has_auto=router.auto is not None)
    for place, key in enumerate(router.keys):
        for name in key.tiers or ():
            check_tier(f"router.keys.{place}.tiers", name, tiers)


def check_thresholds(thresholds: Mapping[str, float], tiers: Sequence[str]) -> None:
    """Checks ``router.auto.thresholds`` against the tiers' names, weakest first.

    Raises ValueError, naming the key, for a tier that does not exist, for the first one, to which every score below the
    thresholds goes, and for a threshold below that of a weaker tier.
    """
    for name in thresholds:
        check_tier(f"router.auto.thresholds.{name}", name, tiers)
    if tiers[0] in thresholds:
        raise ValueError(
            f"router.auto.thresholds.{tiers[0]}: the first tier has no threshold; it gets all scores below the others'"
        )
    ordered = [name for name in tiers if name in thresholds]
    for weaker, name in pairwise(ordered):
        if thresholds[name] < thresholds[weaker]:
            raise ValueError(
                f"router.auto.thresholds.{name}: {thresholds[name]:g} is below the threshold of the weaker tier "
                f"{weaker}, {thresholds[weaker]:g}"
            )


def check_aliases(aliases: Mapping[str, str], tiers: Sequence[str], *, has_auto: bool) -> None:
    """Checks ``router.aliases``. Raises ValueError, naming the key, for an alias that is itself a tier's name or
    ``auto``, and for one of a tier that does not exist or of ``auto`` where that is not served."""
    for alias, target in aliases.items():
        key = f"router.aliases.{alias}"
        if alias in tiers or alias == AUTO:
            raise ValueError(f"{key}: an alias must not be the name of a tier or {AUTO}")
        if target == AUTO and not has_auto:
            raise ValueError(f"{key}: {AUTO} is not served, since router.auto is null")
        if target != AUTO:
            check_tier(key, target, tiers)


def check_tier(key: str, name: str, tiers: Sequence[str]) -> None:
    """Raises ValueError, naming the ``key`` of the settings, if no tier is called ``name``."""
    if name not in tiers:
        what = "there is no such tier" if key.endswith(f".{name}") else f"there is no tier {name}"
        raise ValueError(f"{key}: {what}; there are {', '.join(tiers)}")
