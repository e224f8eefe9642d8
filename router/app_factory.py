"""``build_app``: joins the parts of a router, the formats and the transport to the ASGI application."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from starlette.types import ASGIApp

from router.admin.admin_api import AdminApi
from router.admin.admin_section import AdminSection
from router.admin.cache_api import CacheApi
from router.admin.key_api import KeyApi
from router.admin.overview_api import OverviewApi, OverviewSources
from router.admin.policy_api import PolicyApi
from router.admin.prompt_api import PromptApi
from router.admin.review_api import ReviewApi
from router.admin.scaling_api import ScalingApi
from router.admin.status_api import StatusApi
from router.admin.usage_api import UsageApi
from router.app import App
from router.collection_api import CollectionApi
from router.config.router import RouterConfig
from router.endpoint_protocol import Endpoint
from router.openai.chat import ChatEndpoint
from router.openai.completions import CompletionEndpoint
from router.pipeline_wiring import make_pipeline
from router.ports.stage_metrics import Operation
from router.ports.tier_backend import TierBackend
from router.ports.tracer import NoTracer, Tracer
from router.requests.collection_requests import CollectionRequests
from router.requests.embedding_requests import EmbeddingRequests
from router.requests.model_requests import ModelRequests
from router.requests.moderation_requests import ModerationRequests
from router.requests.stream_requests import StreamRequests
from router.router_parts import RouterParts
from router.router_ports import RouterPorts
from router.routes.admin import AdminRoute
from router.routes.collections import CollectionRoute
from router.routes.embeddings import EmbeddingRoute
from router.routes.health import HealthRoute
from router.routes.inference import InferenceRoute
from router.routes.models import ModelRoute
from router.routes.moderations import ModerationRoute
from router.routes.route import Route
from router.routes.streams import StreamRoute
from router.timed_tracer import TimedTracer

ENDPOINTS: Mapping[str, Endpoint] = {
    "/v1/chat/completions": ChatEndpoint(),
    "/v1/completions": CompletionEndpoint(),
}


def build_app(
    config: RouterConfig,
    backend: TierBackend,
    ports: RouterPorts | None = None,
    endpoints: Mapping[str, Endpoint] = ENDPOINTS,
) -> ASGIApp:
    """Returns the ASGI application that serves the tiers of ``backend``. ``ports`` None: all state is in the memory of
    this process. ``endpoints`` maps paths to wire formats.

    Raises ValueError for a secret of ``config.review`` that cannot be read.
    """
    ports = ports or RouterPorts()
    parts = RouterParts(config, backend, ports)
    return App(make_routes(config, ports, parts, endpoints), config, parts)


def make_routes(
    config: RouterConfig, ports: RouterPorts, parts: RouterParts, endpoints: Mapping[str, Endpoint]
) -> list[Route]:
    """Returns the routes of all paths. Those of inference come first, since most requests are theirs."""
    clock, timeout_s = parts.clock, config.request_timeout_s
    aliases = config.embeddings.aliases
    collections = CollectionRequests(parts.intake, parts.accounting, parts.inspection, clock)
    return [
        *inference_routes(config, ports, parts, endpoints),
        ModerationRoute(
            ModerationRequests(parts.intake, parts.accounting, parts.guard, clock),
            tracer_of(Operation.MODERATION, ports),
            timeout_s,
        ),
        EmbeddingRoute(
            EmbeddingRequests(parts.intake, parts.accounting, parts.inspection, ports.embedder, aliases, clock),
            tracer_of(Operation.EMBEDDINGS, ports),
            timeout_s,
            config.limits.warn_at,
        ),
        CollectionRoute(CollectionApi(collections, parts.retriever), timeout_s),
        StreamRoute(StreamRequests(parts.authenticator, parts.concurrency, parts.streams), timeout_s),
        HealthRoute(parts.backend),
        ModelRoute(
            ModelRequests(parts.authenticator, parts.choice, ports.embedder, aliases),
            parts.backend,
            ports.embedder,
            int(clock.now()),
        ),
        AdminRoute(AdminApi(parts.authenticator, admin_sections(config, ports, parts)), timeout_s),
    ]


def inference_routes(
    config: RouterConfig, ports: RouterPorts, parts: RouterParts, endpoints: Mapping[str, Endpoint]
) -> Iterator[Route]:
    """Yields the route of each of ``endpoints``. All have one pipeline."""
    pipeline = make_pipeline(config, parts)
    tracer = tracer_of(Operation.GENERATION, ports)
    for path, endpoint in endpoints.items():
        yield InferenceRoute(
            path,
            endpoint,
            pipeline,
            parts.streams,
            parts.outliving,
            tracer,
            parts.clock,
            config.request_timeout_s,
            config.limits.warn_at,
        )


def admin_sections(config: RouterConfig, ports: RouterPorts, parts: RouterParts) -> list[AdminSection]:
    """Returns what answers the paths for administrators."""
    clock, backend, store, reviews = parts.clock, parts.backend, parts.store, parts.reviews
    currency, record_change = config.prices.currency, parts.reviews.record_change
    sources = ports.overview or OverviewSources()
    policies = PolicyApi(None if parts.guard is None else parts.guard.admin)
    return [
        KeyApi(parts.registry, store, parts.choice.tiers, parts.tenant_limits, clock),
        UsageApi(store, currency, clock),
        StatusApi(backend, store, reviews.store.audit, policies),
        ReviewApi(reviews.desk, reviews.audit, clock),
        policies,
        PromptApi(parts.prompts, record_change),
        CacheApi(parts.cache_operations, clock, parts.guard),
        ScalingApi(ports.scaling, clock, record_change),
        OverviewApi(backend, store, ports.scaling, clock, currency, parts.counts, sources),
    ]


def tracer_of(operation: Operation, ports: RouterPorts) -> Tracer:
    """Returns the tracer of the requests of ``operation``. It also measures their stages, if ``ports`` has stages."""
    tracer, stages = ports.tracer or NoTracer(), ports.stages
    return tracer if stages is None else TimedTracer(tracer, stages.of(operation), ports.clock.monotonic)
