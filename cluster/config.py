"""``MantaConfig``: all settings of the service. Serve validates an application's ``args`` with it when it runs
``deployments/*.yaml``. Unknown keys are refused.

The settings of the router and the engine are defined in their packages. This module joins them, and checks names and
limits that one part takes from another; ``tier_references.py`` has the checks of tiers that the router names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from cluster.autoscaling.config import AutoscalingConfig
from cluster.cache.config import SemanticCacheConfig
from cluster.embedder.config import EmbedderConfig
from cluster.model_service.config import ReplicaSettings
from cluster.safety.config import SafetySettings
from cluster.telemetry.config import TelemetryConfig
from cluster.tier_references import check_router_tiers, check_tier
from engine.config import EngineConfig
from router.config.profiles import ProfileConfig
from router.config.router import RouterConfig
from router.embedding_request import EMBEDDINGS
from router.tiers.choose_tier import AUTO

TIER_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
"""Pattern of a tier's name, which is used in URLs, headers and the names of Ray actors."""

ROUTER = "Router"
"""The deployment of the routers."""

RESERVED_NAMES = frozenset({AUTO, EMBEDDINGS, ROUTER, "SafetyClassifier", "Embedder", "SemanticCache", "SmallModels"})
"""Names that no tier may have: the model ``auto``, the ledger's name for embeddings, and the deployments beside the
tiers."""


class Settings(BaseModel):
    """The base of all settings: immutable, unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TierConfig(Settings):
    """The settings of one tier: its engine, the number of its replicas, and the resources of each."""

    name: str = Field(pattern=TIER_NAME)
    """The name of the tier, which requests give as ``model``. It is also the name of the tier's deployment."""
    engine: EngineConfig
    optional: bool = False
    """Whether the service starts without the tier where its model is missing. Aliases of such a tier go with it."""
    sampling: ProfileConfig = ProfileConfig()
    """The sampling parameters of requests to the tier that neither set them nor name a profile. vLLM takes these from
    a model's generation_config.json."""
    replicas: int = Field(1, ge=1)
    """Replicas of the tier, if ``autoscaling.tiers`` does not name it. Each has the whole model, in one actor or, with
    engine.tensor_parallel, in one per rank."""
    num_cpus: float = Field(1.0, ge=0)
    """CPU cores that Ray reserves for each process of a replica. 0 if several replicas share a small machine."""
    num_gpus: float = Field(0.0, ge=0)
    """GPUs that Ray reserves for each process of a replica. Must be 1 with engine.tensor_parallel on GPUs."""
    resources: dict[str, float] = Field(default_factory=dict)
    """Custom Ray resources that a replica needs, to place a tier on a node pool."""
    drain_timeout_s: float = Field(600.0, gt=0)
    """Seconds that a stopping replica may take to finish its streams. An idle one stops at once. A value below
    router.request_timeout_s may cut off the longest answers."""
    health_check_period_s: float = Field(10.0, gt=0)
    """Seconds between Serve's health checks of a replica. After three failures in a row Serve replaces the replica."""
    latency_objectives_s: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] = Field((), max_length=16)
    """Seconds of TTFT or ITL at which a bucket of the histograms ends, beside the usual ones and the objectives of
    ``autoscaling`` and ``router.admission``, which are added by themselves. Each is four more series of a replica."""

    @property
    def model_name(self) -> str:
        """The name of the model that the tier runs, as its engine reports it."""
        return self.engine.name or Path(self.engine.model).name

    @model_validator(mode="after")
    def _check_resources(self) -> Self:
        if self.engine.tensor_parallel > 1:
            if self.engine.device == "cuda" and self.num_gpus != 1:
                raise ValueError("num_gpus must be 1 with engine.tensor_parallel: each process has a GPU of its own")
            if self.num_cpus == self.num_gpus == 0:
                raise ValueError("num_cpus must be above 0 with engine.tensor_parallel: Ray places no empty bundles")
        return self


class IngressConfig(Settings):
    """The settings of the deployment ``Router``, which is Serve's HTTP ingress."""

    replicas: int = Field(1, ge=1)
    """Router replicas. With two or more on different nodes, the service survives the loss of a node. They need
    ``state.url`` or ``state.url_file``."""
    num_cpus: float = Field(1.0, ge=0)
    """CPU cores that Ray reserves for each replica. Its event loop uses one at most."""
    max_replicas_per_node: int | None = Field(None, ge=1)
    """The most router replicas on one node, to spread them over nodes. None: no limit."""
    drain_timeout_s: float = Field(600.0, gt=0)
    """Seconds that a stopping router may take to finish its streams. See ``TierConfig.drain_timeout_s``."""
    max_ongoing_requests: int = Field(8192, ge=1)
    """Requests per replica beyond which Serve refuses. It must exceed router.max_concurrent_requests, since the
    router's refusal is an error in OpenAI's format and Serve's is not."""


class PlacementConfig(Settings):
    """The settings by which a replica is chosen within a tier."""

    affinity_weight: float = Field(2.0, ge=0)
    """The weight of the prefix cache against the predicted time to the first token: how often the seconds count that a
    replica would compute the prompt for. 0: each request takes the least time for itself. Where no replica has measured
    its steps, it is the number of sequences on a replica that a full prefix match outweighs."""
    wait_s: float = Field(15.0, ge=0)
    """Seconds that a request waits for a ready replica, for example after a crash, before it gets a 503."""
    silence_s: float = Field(3.0, ge=1.5, le=20)
    """Seconds without a heartbeat after which a replica counts as lost while another one of its tier is heard. Without
    another, it is 20 s. Heartbeats come every 0.5 s, however long a step takes."""
    reader_buffer_tokens: int = Field(4096, ge=1)
    """Unread deltas after which the engine request of a slow client is ended, multiplied by the number of its choices.
    A delta holds about one token."""


class StateConfig(Settings):
    """The settings of the shared state: the address of Redis, and the behaviour when it does not answer.

    Without ``url`` and ``url_file`` a router keeps the state in its memory, and it ends with the router. Two routers
    would each have keys, limits and a ledger of their own, so that is refused for more than one router.
    """

    url: SecretStr | None = None
    """Redis, as ``redis://``, ``rediss://`` (TLS) or ``unix://``, with user and password of an ACL where there is one:
    ``rediss://manta:PASSWORD@redis.example:6379/0``. For Sentinel, its scheme, user, password and database alone
    count."""
    url_file: Path | None = None
    """A file that holds ``url`` alone, such as a mounted secret. It is read where a router starts."""
    cluster: bool = False
    """Whether Redis is a Redis Cluster, of which ``url`` names any node."""
    sentinels: tuple[Annotated[str, Field(pattern=r"^[^:\s]+:[0-9]{1,5}$")], ...] = ()
    """The addresses ``host:port`` of the Sentinels that know the present master, if there are any."""
    sentinel_service: str = "mymaster"
    """The name by which the Sentinels know the master."""
    timeout_s: float = Field(0.1, gt=0)
    """Seconds after which a call that a request waits for is given up. ``router.limits`` says what happens then."""
    background_timeout_s: float = Field(2.0, gt=0)
    """Seconds after which a call is given up that no request waits for: settlements, leases, the ledger."""
    max_faults: int = Field(5, ge=1)
    """Faults in a row after which Redis is not asked for a while (circuit breaker). Both kinds of calls have a breaker
    of their own."""
    open_s: float = Field(1.0, gt=0)
    """Seconds until Redis is asked again after that; twice as long after each further fault, up to max_open_s."""
    max_open_s: float = Field(10.0, gt=0)
    """The longest time for which Redis is not asked, in seconds. Redis is used again at most this long after it is
    back."""
    journal: Path | None = None
    """The directory where ledger entries wait until they are in Redis. It should survive a restart of the router. None:
    one for this user and this Redis in the directory for temporary files."""
    journal_max_bytes: int = Field(256 * 1024 * 1024, ge=65536)
    """The most bytes that wait there. Entries beyond are lost, and logged. An entry has about 1,000 bytes."""
    entries_kept_days: int = Field(3, ge=1)
    """Days that the document of each ledger entry is kept, about 750 bytes of Redis' memory each: 100 requests a second
    take 19 GB in 3 days. An entry that is appended again after that is counted twice. Sums are kept longer, whatever
    this says."""

    @model_validator(mode="after")
    def _check_one_url(self) -> Self:
        if self.url is not None and self.url_file is not None:
            raise ValueError("url and url_file exclude each other")
        if self.cluster and self.sentinels:
            raise ValueError("cluster and sentinels exclude each other")
        if (self.cluster or self.sentinels) and not self.shared:
            raise ValueError("cluster and sentinels need url or url_file")
        if self.url is not None:
            check_redis_url(self.url.get_secret_value())
        return self

    @property
    def shared(self) -> bool:
        """Whether the state is in Redis, where all routers share it."""
        return self.url is not None or self.url_file is not None

    def read_url(self) -> str | None:
        """Returns the URL of ``url`` or of the file ``url_file``; None if neither is set.

        Raises ValueError for a file that cannot be read or holds no URL of Redis.
        """
        if self.url is not None:
            return self.url.get_secret_value()
        if self.url_file is None:
            return None
        try:
            url = self.url_file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ValueError(f"state.url_file: {self.url_file}: {error.strerror}") from error
        check_redis_url(url)
        return url


def check_redis_url(url: str) -> None:
    """Raises ValueError, without the URL, unless its scheme is one of Redis, and its host and port can be read."""
    if not url.startswith(("redis://", "rediss://", "unix://")):
        raise ValueError("state.url: must begin with redis://, rediss:// or unix://")
    try:
        _ = urlsplit(url).port
    except ValueError:  # it quotes what it takes for the port: a part of a password with a "/" in it
        raise ValueError(
            "state.url: host or port cannot be read; write / # ? @ in a password as %2F %23 %3F %40"
        ) from None


class MantaConfig(Settings):
    """The settings of the whole service, the argument of ``cluster.app:build``."""

    tiers: tuple[TierConfig, ...] = Field(min_length=1)
    """The tiers in order of ability, weakest first. A mapping from names to the other settings is accepted too."""
    router: RouterConfig
    ingress: IngressConfig = IngressConfig()
    placement: PlacementConfig = PlacementConfig()
    state: StateConfig = StateConfig()
    safety: SafetySettings = SafetySettings()
    embedder: EmbedderConfig | None = None
    """The model of /v1/embeddings. None: there are no embeddings."""
    autoscaling: AutoscalingConfig | None = None
    """How many replicas tiers have by their load. None, and for tiers that are not named there: ``replicas``."""
    cache: SemanticCacheConfig | None = None
    """What finds stored answers by the meaning of their question. None, or without ``embedder`` or Redis: they are
    found by their exact question only. ``router.cache`` says whether answers are stored."""
    small_models: ReplicaSettings | None = None
    """The replicas of the deployment ``SmallModels``, each of which runs the safety classifier, the embedder and the
    semantic cache in one process. It saves memory and time on a small machine. None: each is a deployment of its own,
    with replicas of its own."""
    telemetry: TelemetryConfig = TelemetryConfig()
    """Where traces go, and what logs look like. Metrics need no settings."""

    @field_validator("tiers", mode="before")
    @classmethod
    def _from_mapping(cls, tiers: object) -> object:
        return tiers_from_mapping(tiers) if isinstance(tiers, Mapping) else tiers

    @field_validator("tiers")
    @classmethod
    def _check_tier_names(cls, tiers: tuple[TierConfig, ...]) -> tuple[TierConfig, ...]:
        check_tier_names([tier.name for tier in tiers])
        return tiers

    @model_validator(mode="after")
    def _check_router_tiers(self) -> Self:
        check_router_tiers(self.router, [tier.name for tier in self.tiers])
        return self

    @model_validator(mode="after")
    def _check_embeddings_price(self) -> Self:
        prices = self.router.prices.tiers
        if self.embedder is not None and prices and EMBEDDINGS not in prices:
            raise ValueError(f"router.prices.tiers: {EMBEDDINGS} have no price, and would cost nothing")
        return self

    @model_validator(mode="after")
    def _check_autoscaling(self) -> Self:
        check_autoscaling(self.autoscaling, self.tiers)
        if self.autoscaling is not None:
            check_pools(self.autoscaling, self.tiers)
            check_followers(self.autoscaling, self._replica_settings())
        return self

    def _replica_settings(self) -> Mapping[str, IngressConfig | ReplicaSettings]:
        """Returns the settings of the replicas of each deployment beside the tiers, by its name."""
        services: dict[str, ReplicaSettings | None]
        services = {"SafetyClassifier": self.safety.classifier, "Embedder": self.embedder, "SemanticCache": self.cache}
        if self.small_models is not None:
            services = {"SmallModels": self.small_models}
        used = {name: settings for name, settings in services.items() if settings is not None}
        return {ROUTER: self.ingress, **used}

    @model_validator(mode="after")
    def _check_small_models(self) -> Self:
        services = {"safety.classifier": self.safety.classifier, "embedder": self.embedder, "cache": self.cache}
        used = {name: service for name, service in services.items() if service is not None}
        check_small_models(self.small_models, used)
        return self

    @model_validator(mode="after")
    def _check_request_limits(self) -> Self:
        if self.router.max_concurrent_requests >= self.ingress.max_ongoing_requests:
            raise ValueError("ingress.max_ongoing_requests must exceed router.max_concurrent_requests")
        return self

    @model_validator(mode="after")
    def _check_logged_texts(self) -> Self:
        for name, tenant in self.router.tenants.items():
            if tenant.log_texts and self.telemetry.texts.directory is None:
                raise ValueError(f"router.tenants.{name}.log_texts: needs telemetry.texts.directory, where texts go")
        return self

    @model_validator(mode="after")
    def _check_shared_state(self) -> Self:
        scaled = {} if self.autoscaling is None else self.autoscaling.followers
        key, routers = "ingress.replicas", self.ingress.replicas
        if ROUTER in scaled:
            key, routers = f"autoscaling.followers.{ROUTER}.max", scaled[ROUTER].max
        if routers > 1 and not self.state.shared:
            raise ValueError(
                f"{key}: {routers} routers need state.url or state.url_file: without Redis, "
                "each has keys, limits and a ledger of its own"
            )
        return self


def tiers_from_mapping(tiers: Mapping[Any, Any]) -> list[Any]:
    """Returns the tiers of a mapping from tier name to tier settings, as a list in the order of the mapping.

    Raises ValueError for settings that are no mapping, or that contain a name that differs from their key.
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
    """Raises ValueError if one of ``names`` is reserved or occurs twice."""
    for place, name in enumerate(names):
        if name in RESERVED_NAMES:
            raise ValueError(f"{name}: this name is reserved")
        if name in names[:place]:
            raise ValueError(f"{name}: two tiers have this name")


def check_autoscaling(autoscaling: AutoscalingConfig | None, tiers: Sequence[TierConfig]) -> None:
    """Raises ValueError, naming the setting, for a tier that does not exist or has a fixed number of replicas too."""
    if autoscaling is None:
        return
    for name in autoscaling.tiers:
        key = f"autoscaling.tiers.{name}"
        check_tier(key, name, [tier.name for tier in tiers])
        if any(tier.name == name and "replicas" in tier.model_fields_set for tier in tiers):
            raise ValueError(f"{key}: the tier has replicas, a fixed number, too")


def check_pools(autoscaling: AutoscalingConfig, tiers: Sequence[TierConfig]) -> None:
    """Raises ValueError, naming the setting, for a pool that has fewer GPUs than the minima of its tiers need: Serve
    starts those all the same."""
    for pool, gpus in autoscaling.pools.items():
        least = {name: each.min for name, each in autoscaling.tiers.items() if each.pool == pool}
        held = sum(least.get(tier.name, 0) * tier.num_gpus * tier.engine.tensor_parallel for tier in tiers)
        if held > gpus:
            raise ValueError(
                f"autoscaling.pools.{pool}: the minima of its tiers need {held:g} GPUs, and it has {gpus:g}"
            )


def check_followers(autoscaling: AutoscalingConfig, deployments: Mapping[str, IngressConfig | ReplicaSettings]) -> None:
    """Raises ValueError, naming the setting, for a follower that is none of the ``deployments`` of this service, or has
    a fixed number of replicas too."""
    for name in autoscaling.followers:
        key = f"autoscaling.followers.{name}"
        if name not in deployments:
            raise ValueError(f"{key}: there is no such deployment; there are {', '.join(deployments)}")
        if "replicas" in deployments[name].model_fields_set:
            raise ValueError(f"{key}: the deployment has replicas, a fixed number, too")


def check_small_models(small_models: ReplicaSettings | None, services: Mapping[str, ReplicaSettings]) -> None:
    """Raises ValueError, naming the setting, if ``small_models`` is set, but none of the ``services`` that share its
    replicas is, or one of them has settings of replicas of its own."""
    if small_models is None:
        return
    if not services:
        raise ValueError("small_models: there is no safety.classifier, embedder or cache to run")
    for name, service in services.items():
        for key in sorted(service.model_fields_set & ReplicaSettings.model_fields.keys()):
            raise ValueError(f"{name}.{key}: with small_models, small_models.{key} takes its place")
