"""``Router``: the deployment that is Serve's HTTP ingress. It runs the ASGI application of ``router.app``.

Serve runs the application's lifespan on the replica's event loop: startup before the replica takes traffic, shutdown
after its last request has ended. The application then calls ``start`` and ``close`` of the ``ServeBackend``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.types import ASGIApp

from cluster.access.jwks_sources import jwks_source
from cluster.asgi_wrappers import (
    with_counted_requests,
    with_logged_request,
    with_task,
    without_request_id,
    without_root_path,
)
from cluster.autoscaling.busy_counter import BusyCounter
from cluster.autoscaling.config import WaitingRoomConfig
from cluster.autoscaling.decision_store import DecisionStore
from cluster.autoscaling.stored_tier_scaling import StoredTierScaling
from cluster.autoscaling.warm_replica_store import WarmReplicaStore, follow_warm_replicas
from cluster.cache.deployment import SemanticCacheLink, semantic_cache_client
from cluster.cache.semantic_cache_client import SemanticCacheClient
from cluster.cold_starts import cold_start_rooms
from cluster.config import PlacementConfig, StateConfig
from cluster.embedder.deployment import EmbedderLink, embedder_client
from cluster.embedder.embedder_client import EmbedderClient
from cluster.lanes.serve_replica_client import ServeReplicaClient
from cluster.process_memory import spare_collector
from cluster.safety.canary_key import CanaryKey
from cluster.safety.classifier_client import ClassifierClient
from cluster.safety.deployment import ClassifierLink, classifier_client
from cluster.safety.policy_store import SharedPolicies
from cluster.serve_backend import ServeBackend
from cluster.serve_engine_counts import ServeEngineCounts
from cluster.shared_stores import (
    shared_answers,
    shared_collections,
    shared_idempotency_keys,
    shared_prompts,
    shared_reviews,
    shared_state,
    shared_streams,
)
from cluster.telemetry.cache_metrics import RayCacheMetrics
from cluster.telemetry.config import TelemetryConfig, TextsConfig
from cluster.telemetry.dependency_gauges import Dependencies, Guarded
from cluster.telemetry.logs import replica_logs
from cluster.telemetry.prediction_metrics import PredictionMetrics
from cluster.telemetry.router_telemetry import RouterTelemetry
from cluster.telemetry.stage_metrics import RayStageMetrics
from cluster.telemetry.text_files import TextFiles
from cluster.telemetry.text_log import OnLost, RedactedTextLog
from cluster.telemetry.usage_metrics import RayUsageMetrics
from router.admin.overview_api import OverviewSources
from router.app_factory import build_app
from router.config.router import RouterConfig
from router.ports.safety_store import SafetyStore
from router.ports.state_store import StateStore
from router.ports.text_log import TextLog
from router.ports.tier_backend import TierDescription
from router.ports.tier_scaling import ReplicaBounds, TierScaling
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


@dataclass(frozen=True, slots=True)
class ServiceClients:
    """The clients of the deployments beside the tiers. None: there is no such deployment."""

    classifier: ClassifierClient | None
    embedder: EmbedderClient | None
    index: SemanticCacheClient | None

    def guarded(self) -> dict[str, Guarded]:
        """Returns those that are there, by the names that metrics give them."""
        named = {"classifier": self.classifier, "embedder": self.embedder, "semantic index": self.index}
        return {name: client for name, client in named.items() if client is not None}


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
        telemetry = RouterTelemetry(self._telemetry)
        scaling = tier_scaling(self._scaled_tiers)
        backend = self._backend(telemetry, scaling)
        clients = self._clients()
        store = shared_state(self._state, telemetry.faults.lost("ledger"))
        reviews = shared_reviews(self._state, self._config.review, telemetry.faults.lost("audit"))
        publish = telemetry.publisher(Dependencies(store, reviews.store.audit, clients.guarded()))
        app = build_app(self._config, backend, self._ports(telemetry, clients, store, reviews, scaling))
        spare_collector()
        if self._warm_pools:
            warm = WarmReplicaStore(serve.get_replica_context().app_name)
            app = with_task(app, partial(follow_warm_replicas, warm, backend.set_warm))
        self._busy = BusyCounter()
        return with_task(
            with_counted_requests(without_root_path(with_logged_request(without_request_id(app))), self._busy),
            publish,
        )

    def _backend(self, telemetry: RouterTelemetry, scaling: TierScaling | None) -> ServeBackend:
        """Returns the backend over the deployments of the tiers."""
        clients = {name: ServeReplicaClient(handle) for name, handle in self._handles.items()}
        rooms = cold_start_rooms(self._waiting_rooms, telemetry.application, scaling)
        predictions = PredictionMetrics(telemetry.summed)
        return ServeBackend(self._tiers, clients, self._placement, predictions.count, rooms)

    def _clients(self) -> ServiceClients:
        """Returns the clients of the deployments beside the tiers."""
        return ServiceClients(
            None if self._classifier is None else classifier_client(self._classifier),
            None if self._embedder is None else embedder_client(self._embedder),
            None if self._cache is None else semantic_cache_client(self._cache),
        )

    def _ports(
        self,
        telemetry: RouterTelemetry,
        clients: ServiceClients,
        store: StateStore | None,
        reviews: ReviewService,
        scaling: TierScaling | None,
    ) -> RouterPorts:
        """Returns what the router is given beside its config and its backend."""
        summed, faults, tenants = telemetry.summed, telemetry.faults, self._telemetry.metrics.max_tenants
        breakers = partial(breaker_states, clients.guarded())
        make_guard = None
        if self._policies is not None:
            canary_key = CanaryKey(reviews.keys)
            make_guard = guard_maker(self._policies, clients.classifier, faults.unreadable_policy, canary_key)
        return RouterPorts(
            store=store,
            reviews=reviews,
            prompts=shared_prompts(self._state),
            collections=shared_collections(self._state),
            streams=shared_streams(self._state),
            idempotency=shared_idempotency_keys(self._state),
            cache=CacheParts(shared_answers(self._state), clients.index, RayCacheMetrics(summed, tenants)),
            forecaster=self._forecaster,
            jwks=jwks_source(self._config.access.jwt),
            make_guard=make_guard,
            embedder=clients.embedder,
            scaling=scaling,
            metrics=RayUsageMetrics(summed, tenants),
            tracer=telemetry.tracer,
            stages=RayStageMetrics(summed, self._objectives_s),
            texts=text_log(self._telemetry.texts, telemetry.router, telemetry.application, faults.lost_text),
            overview=OverviewSources(ServeEngineCounts(self._handles), breakers, telemetry.router),
        )

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Returns the numbers by which the routers are scaled, if they are (``busy_report``)."""
        return self._busy.numbers()


def breaker_states(services: Mapping[str, Guarded]) -> dict[str, str]:
    """Returns the state of the circuit breaker before each of ``services``."""
    return {name: service.state.value for name, service in services.items()}


def tier_scaling(tiers: Mapping[str, ReplicaBounds] | None) -> TierScaling | None:
    """Returns the access to the autoscaler of this application, which scales ``tiers``, by name, and maybe followers;
    None if ``tiers`` is None."""
    return None if tiers is None else StoredTierScaling(DecisionStore(serve.get_replica_context().app_name), tiers)


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


def text_log(config: TextsConfig, router: str, application: str, on_lost: OnLost) -> TextLog | None:
    """Returns the log of texts of the router named ``router``; None if ``config`` names no directory. ``on_lost`` is
    called for each record that is lost, with the reason."""
    if config.directory is None:
        return None
    files = TextFiles(config.directory, router, config.keep_days * 86400, config.max_bytes)
    return RedactedTextLog(config, files, {"application": application, "replica": router}, on_lost)
