"""``Router``: the deployment that is Serve's HTTP ingress. It runs the ASGI application of ``router.app``.

Serve runs the application's lifespan on the replica's event loop: startup before the replica takes traffic, shutdown
after its last request has ended. The application then calls ``start`` and ``close`` of the ``ServeBackend``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cluster.access.jwks_sources import jwks_source
from cluster.autoscaling.busy_counter import BusyCounter
from cluster.autoscaling.config import WaitingRoomConfig
from cluster.autoscaling.decision_store import DecisionStore
from cluster.autoscaling.stored_tier_scaling import StoredTierScaling
from cluster.autoscaling.waiting_room_reporter import WaitingRoomReporter
from cluster.autoscaling.waiting_room_store import WaitingRoomStore
from cluster.autoscaling.warm_replica_store import WarmReplicaStore, follow_warm_replicas
from cluster.cache.deployment import SemanticCacheLink, semantic_cache_client
from cluster.config import PlacementConfig, StateConfig
from cluster.embedder.deployment import EmbedderLink, embedder_client
from cluster.lanes.cold_start_room import ColdStartRoom
from cluster.lanes.serve_replica_client import ServeReplicaClient
from cluster.process_memory import spare_collector
from cluster.safety.canary_key import CanaryKey
from cluster.safety.deployment import ClassifierLink, classifier_client
from cluster.safety.policy_store import SharedPolicies
from cluster.serve_backend import ServeBackend
from cluster.serve_engine_counts import ServeEngineCounts
from cluster.state.redis_collection_store import RedisCollections
from cluster.state.redis_entry_store import RedisEntryStore
from cluster.state.redis_idempotency_store import RedisIdempotencyStore
from cluster.state.redis_prompt_store import RedisPromptStore
from cluster.state.redis_safety_store import RedisSafetyStore
from cluster.state.redis_store import RedisStore
from cluster.state.redis_stream_store import RedisStreamStore
from cluster.telemetry.application_name import application_name
from cluster.telemetry.cache_metrics import RayCacheMetrics
from cluster.telemetry.config import TelemetryConfig, TextsConfig
from cluster.telemetry.dependency_gauges import Dependencies, DependencyGauges, Guarded
from cluster.telemetry.fault_metrics import FaultMetrics
from cluster.telemetry.instruments import RayInstruments
from cluster.telemetry.keep_publishing import keep_publishing
from cluster.telemetry.log_context import logged_request
from cluster.telemetry.logs import replica_logs, replica_name
from cluster.telemetry.make_otlp_instruments import make_otlp_instruments
from cluster.telemetry.prediction_metrics import PredictionMetrics
from cluster.telemetry.router_build_info import RouterBuildInfo
from cluster.telemetry.stage_metrics import RayStageMetrics
from cluster.telemetry.summed_instruments import SummedInstruments
from cluster.telemetry.text_files import TextFiles
from cluster.telemetry.text_log import OnLost, RedactedTextLog
from cluster.telemetry.tracing import router_tracer
from cluster.telemetry.usage_metrics import RayUsageMetrics
from router.admin.overview_api import OverviewSources
from router.app_factory import build_app
from router.config.review import ReviewConfig
from router.config.router import RouterConfig
from router.memory_entry_store import MemoryEntryStore
from router.memory_safety_store import MemorySafetyStore
from router.ports.answer_cache import EntryStore
from router.ports.clock import SystemClock
from router.ports.collection_store import CollectionStore
from router.ports.idempotency_store import IdempotencyStore
from router.ports.prompt_store import PromptStore
from router.ports.safety_store import SafetyStore
from router.ports.state_store import StateStore, StateUnavailableError
from router.ports.stream_store import StreamStore
from router.ports.text_log import TextLog
from router.ports.tier_backend import TierDescription
from router.ports.tier_scaling import ReplicaBounds, TierScaling
from router.request_id import request_id
from router.review.review_wiring import ReviewService
from router.router_ports import CacheParts, MakeGuard, RouterPorts
from router.tiers.quality_forecast import Forecaster
from safety.api import Guard, Oversight, TextClassifier
from safety.classification import AbsentClassifier
from safety.compiled_policy import Parts
from safety.guard import PolicyGuard
from safety.policy import SafetyPolicies
from safety.policy_book import PolicyBook
from safety.score_memory import RememberingClassifier

if TYPE_CHECKING:
    from cluster.telemetry.otel_tracer import OtelTracer
    from cluster.telemetry.otlp_instruments import OtlpInstruments


@serve.ingress()
class Router:
    """The ingress actor. Each of its replicas has a lane to every replica of every tier.

    ``tiers`` are in order of ability, weakest first. ``handles`` are the handles of their deployments, by tier name.
    ``classifier``, ``embedder`` and ``cache`` are the links to the deployments ``SafetyClassifier``, ``Embedder`` and
    ``SemanticCache``; None: there is no such deployment. ``policies`` are the safety policies; None: nothing is
    inspected. ``forecaster`` chooses the tier for ``model: auto``; None: the complexity score does. ``state`` and
    ``telemetry`` None: the defaults. ``scaled_tiers`` has the bounds of the tiers whose number of replicas is not
    fixed; None: nothing is scaled. ``waiting_rooms`` has the settings of the tiers that may be at zero.
    ``warm_pools``: some tiers have replicas that serve nothing. ``objectives_s`` are as in ``RayStageMetrics``.
    """

    def __init__(
        self,
        config: RouterConfig,
        placement: PlacementConfig,
        tiers: Sequence[TierDescription],
        handles: Mapping[str, DeploymentHandle[Any]],
        forecaster: Forecaster | None = None,
        state: StateConfig | None = None,
        classifier: ClassifierLink | None = None,
        policies: SafetyPolicies | None = None,
        embedder: EmbedderLink | None = None,
        cache: SemanticCacheLink | None = None,
        scaled_tiers: Mapping[str, ReplicaBounds] | None = None,
        telemetry: TelemetryConfig | None = None,
        waiting_rooms: Mapping[str, WaitingRoomConfig] | None = None,
        warm_pools: bool = False,
        objectives_s: Sequence[float] = (),
    ) -> None:
        self._objectives_s = objectives_s
        self._warm_pools = warm_pools
        self._waiting_rooms = waiting_rooms or {}
        self._telemetry = telemetry or TelemetryConfig()
        self._config = config
        self._placement = placement
        self._tiers = tiers
        self._handles = handles
        self._forecaster = forecaster
        self._state = state or StateConfig()
        self._classifier = classifier
        self._policies = policies
        self._embedder = embedder
        self._cache = cache
        self._scaled_tiers = scaled_tiers
        self._busy = BusyCounter()  # replaced once the application is built, which is no work of a request

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Returns the ASGI application. Serve calls it once, in the replica's process."""
        replica_logs(self._telemetry.logs)
        application = application_name()
        clients = {name: ServeReplicaClient(handle) for name, handle in self._handles.items()}
        scaling = tier_scaling(self._scaled_tiers)
        rooms = cold_start_rooms(self._waiting_rooms, application, scaling)
        sent = make_otlp_instruments(self._telemetry, "router", replica_name(), application)
        made = sent or RayInstruments(application)
        named = self._telemetry.metrics.max_tenants
        summed = SummedInstruments(made)  # of what each request changes
        backend = ServeBackend(self._tiers, clients, self._placement, PredictionMetrics(summed).count, rooms)
        jwks, faults = jwks_source(self._config.access.jwt), FaultMetrics(made)
        classifier = None if self._classifier is None else classifier_client(self._classifier)
        embedder = None if self._embedder is None else embedder_client(self._embedder)
        index = None if self._cache is None else semantic_cache_client(self._cache)
        store = shared_state(self._state, faults.lost("ledger"))
        reviews = shared_reviews(self._state, self._config.review, faults.lost("audit"))
        services: dict[str, Guarded | None] = {"classifier": classifier, "embedder": embedder, "semantic index": index}
        used = {name: service for name, service in services.items() if service is not None}
        tracer = router_tracer(self._telemetry, application)
        depends = DependencyGauges(Dependencies(store, reviews.store.audit, used), made)
        gauges: Sequence[Published] = (depends, RouterBuildInfo(made))
        app = build_app(
            self._config,
            backend,
            RouterPorts(
                forecaster=self._forecaster,
                store=store,
                jwks=jwks,
                metrics=RayUsageMetrics(summed, named),
                make_guard=None
                if self._policies is None
                else guard_maker(self._policies, classifier, faults.unreadable_policy, CanaryKey(reviews.keys)),
                reviews=reviews,
                embedder=embedder,
                prompts=shared_prompts(self._state),
                cache=CacheParts(shared_answers(self._state), index, RayCacheMetrics(summed, named)),
                collections=shared_collections(self._state),
                streams=shared_streams(self._state),
                idempotency=shared_idempotency_keys(self._state),
                scaling=scaling,
                tracer=tracer,
                stages=RayStageMetrics(summed, self._objectives_s),
                overview=OverviewSources(
                    ServeEngineCounts(self._handles), partial(breaker_states, used), replica_name()
                ),
                texts=text_log(self._telemetry.texts, replica_name(), application, faults.lost_text),
            ),
        )
        spare_collector()
        if self._warm_pools:
            warm = WarmReplicaStore(serve.get_replica_context().app_name)
            app = with_task(app, partial(follow_warm_replicas, warm, backend.set_warm))
        self._busy = BusyCounter()
        return with_task(
            with_counted_requests(without_root_path(with_logged_request(without_request_id(app))), self._busy),
            partial(publish_until_end, gauges, summed, tracer, sent),
        )

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Returns the numbers by which the routers are scaled, if they are (``busy_report``)."""
        return self._busy.numbers()


def breaker_states(services: Mapping[str, Guarded]) -> dict[str, str]:
    """Returns the state of the circuit breaker before each of ``services``."""
    return {name: service.state.value for name, service in services.items()}


class Published(Protocol):
    """Metrics that are set or added up at once when ``publish`` is called."""

    def publish(self) -> None: ...


async def publish_until_end(
    gauges: Sequence[Published], summed: SummedInstruments, tracer: OtelTracer | None, sent: OtlpInstruments | None
) -> None:
    """Publishes ``gauges`` and ``summed`` until it is cancelled, then the last of ``summed``, and exports the last
    spans of ``tracer`` and the last counts of ``sent``."""

    def publish() -> None:
        summed.publish()
        for each in gauges:
            each.publish()

    try:
        await keep_publishing("the publication of the router's metrics", publish)
    finally:
        summed.publish()
        for exporter in (tracer, sent):
            if exporter is not None:
                await asyncio.to_thread(exporter.close)


def tier_scaling(tiers: Mapping[str, ReplicaBounds] | None) -> TierScaling | None:
    """Returns the access to the autoscaler of this application, which scales ``tiers``, by name, and maybe followers;
    None if ``tiers`` is None."""
    return None if tiers is None else StoredTierScaling(DecisionStore(serve.get_replica_context().app_name), tiers)


def cold_start_rooms(
    configs: Mapping[str, WaitingRoomConfig], application: str, scaling: TierScaling | None
) -> dict[str, ColdStartRoom]:
    """Returns this router's waiting room for each tier that may be at zero, by tier name. ``configs`` has the settings
    of these tiers. ``scaling`` knows the length of a cold start; None: nothing does."""
    if not configs:
        return {}
    store, router = WaitingRoomStore(application), serve.get_replica_context().replica_id.unique_id
    return {
        name: ColdStartRoom(
            name, config, WaitingRoomReporter(store, name, router).report, partial(cold_start_s, scaling, name)
        )
        for name, config in configs.items()
    }


async def cold_start_s(scaling: TierScaling | None, tier: str) -> float:
    """Returns the seconds of a cold start of ``tier``, as in the last decision of the autoscaler; 0 if ``scaling`` is
    None or the decision cannot be read."""
    try:
        rows = [] if scaling is None else await scaling.decisions()
    except StateUnavailableError:
        return 0.0
    numbers = next((row["numbers"] for row in rows if row["tier"] == tier), None)
    return float(numbers.get("cold_start_s", 0.0)) if isinstance(numbers, dict) else 0.0


def guard_maker(
    policies: SafetyPolicies,
    classifier: TextClassifier | None,
    on_unreadable: Callable[[], None],
    canary_key: Callable[[], bytes],
) -> MakeGuard:
    """Returns a function that makes the guard of a router. ``classifier`` None: there is none.

    ``on_unreadable`` is called each time that a stored policy turns out to be unreadable. ``canary_key`` is as in
    ``Parts``."""
    checked: TextClassifier = AbsentClassifier() if classifier is None else RememberingClassifier(classifier)
    parts = Parts(checked, canary_key=canary_key)

    def make(oversight: Oversight, store: SafetyStore) -> Guard:
        book = PolicyBook(
            policies, SharedPolicies(store), has_classifier=classifier is not None, on_unreadable=on_unreadable
        )
        return PolicyGuard(book, parts, oversight, admin=book)

    return make


def shared_state(config: StateConfig, on_lost: Callable[[], None] = lambda: None) -> StateStore | None:
    """Returns the store of ``config``; None if it names no Redis. ``on_lost`` is called for each entry that is lost.

    Raises ValueError for a URL that cannot be used, and OSError for a journal that cannot be written.
    """
    url = config.read_url()
    return None if url is None else RedisStore(config, url, on_lost=on_lost)


def shared_reviews(
    state: StateConfig, config: ReviewConfig, on_lost: Callable[[], None] = lambda: None
) -> ReviewService:
    """Returns the review service with the audit log. It keeps them in the Redis of ``state``, or in this process'
    memory if ``state`` names no Redis.

    Raises as ``shared_state`` does, and ValueError for a secret of ``config`` that cannot be read.
    """
    clock, url = SystemClock(), state.read_url()
    store = (
        MemorySafetyStore(clock) if url is None else RedisSafetyStore(state, url, config.audit_days, on_lost=on_lost)
    )
    return ReviewService(store, config, clock)


def shared_prompts(config: StateConfig) -> PromptStore | None:
    """Returns the store of prompts in the Redis of ``config``; None if it names no Redis. Raises as ``shared_state``
    does."""
    url = config.read_url()
    return None if url is None else RedisPromptStore(config, url)


def shared_answers(state: StateConfig) -> EntryStore:
    """Returns the store of cached answers, in the Redis of ``state``, or in this process' memory if ``state`` names no
    Redis. Raises ValueError for a URL that cannot be used."""
    url = state.read_url()
    return MemoryEntryStore(SystemClock()) if url is None else RedisEntryStore(state, url)


def shared_collections(config: StateConfig) -> CollectionStore | None:
    """Returns the store of the collections; None if ``config`` names no Redis. Raises ValueError for a URL that cannot
    be used."""
    url = config.read_url()
    return None if url is None else RedisCollections(config, url)


def shared_streams(config: StateConfig) -> StreamStore | None:
    """Returns the store of detached streams; None if ``config`` names no Redis. Raises ValueError for a URL that cannot
    be used."""
    url = config.read_url()
    return None if url is None else RedisStreamStore(config, url)


def shared_idempotency_keys(config: StateConfig) -> IdempotencyStore | None:
    """Returns the store of idempotency keys; None if ``config`` names no Redis. Raises ValueError for a URL that cannot
    be used."""
    url = config.read_url()
    return None if url is None else RedisIdempotencyStore(config, url)


def text_log(config: TextsConfig, router: str, application: str, on_lost: OnLost) -> TextLog | None:
    """Returns the log of texts of the router named ``router``; None if ``config`` names no directory. ``on_lost`` is
    called for each record that is lost, with the reason."""
    if config.directory is None:
        return None
    files = TextFiles(config.directory, router, config.keep_days * 86400, config.max_bytes)
    return RedactedTextLog(config, files, {"application": application, "replica": router}, on_lost)


def with_task(app: ASGIApp, work: Callable[[], Awaitable[None]]) -> ASGIApp:
    """Returns ``app`` with ``work`` as a task beside it, from its start until its end."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            return await app(scope, receive, send)
        task = asyncio.ensure_future(work())
        try:
            return await app(scope, receive, send)
        finally:
            task.cancel()
            await asyncio.wait({task})

    return wrapped


def with_counted_requests(app: ASGIApp, busy: BusyCounter) -> ASGIApp:
    """Returns ``app`` with each of its requests counted in ``busy``."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            busy.count()
        await app(scope, receive, send)

    return wrapped


def with_logged_request(app: ASGIApp) -> ASGIApp:
    """Returns ``app`` with log lines that name the request they belong to, by the id that ``app`` itself uses."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        offered = next((value for name, value in scope["headers"] if name.lower() == b"x-request-id"), None)
        own = request_id(None if offered is None else offered.decode("latin-1"))
        others = [header for header in scope["headers"] if header[0].lower() != b"x-request-id"]
        with logged_request(own):
            await app({**scope, "headers": [*others, (b"x-request-id", own.encode())]}, receive, send)

    return wrapped


def without_root_path(app: ASGIApp) -> ASGIApp:
    """Returns ``app`` with the application's ``route_prefix`` removed from every path; Serve does not remove it."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        if root_path := scope.get("root_path"):
            scope = {**scope, "path": scope["path"].removeprefix(root_path) or "/"}
        await app(scope, receive, send)

    return wrapped


def without_request_id(app: ASGIApp) -> ASGIApp:
    """Returns ``app`` without the response header x-request-id. Serve adds its own, and clients would get two."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_without(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [(name, value) for name, value in message["headers"] if name != b"x-request-id"]
                message = {**message, "headers": headers}
            await send(message)

        await app(scope, receive, send_without)

    return wrapped
