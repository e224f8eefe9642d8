"""The ASGI application: routes paths to endpoints, answers requests, and starts and stops the tier backend.

It is the only file that knows the transport, the wire formats and the pipeline.
"""

from __future__ import annotations

import asyncio
import logging
import re
import traceback
import uuid
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from starlette.types import ASGIApp, Receive, Scope, Send

from engine.api import Usage
from router.access.authenticator import Authenticator
from router.access.config_api_keys import ConfigKeys
from router.access.key_registry import KeyRegistry
from router.access.token_verifier import TokenVerifier
from router.admin.admin_api import AdminApi, AdminCall
from router.admin.cache_api import CacheApi
from router.admin.overview_api import OverviewApi, OverviewSources
from router.admin.policy_api import PolicyApi
from router.admin.prompt_api import PromptApi
from router.admin.review_api import ReviewApi
from router.admin.router_counts import RouterCounts
from router.admin.scaling_api import ScalingApi
from router.answer_events import AnswerEvent, AnswerWriter, Repeated, Routed, SharedAnswer, Stamp
from router.cache.answer_cache import AnswerCache
from router.cache.cache_operations import CacheOperations
from router.collection_api import COLLECTIONS, CollectionApi, CollectionCall
from router.config import AnswerCacheConfig, RouterConfig
from router.embedding_request import EmbeddingAccepted, EmbeddingResult
from router.endpoint_protocol import Endpoint
from router.errors import (
    DeadlineExceededError,
    InvalidRequestError,
    LimitExceededError,
    MethodNotAllowedError,
    NotFoundError,
    RefusalError,
    RefusalKind,
    refusal_of,
)
from router.generation.collect import collect
from router.idempotency.idempotent_requests import IdempotentRequests
from router.inference_request import Call
from router.ledger.ledger import Ledger
from router.memory_collection_store import MemoryCollectionStore
from router.memory_entry_store import MemoryEntryStore
from router.memory_idempotency_store import MemoryIdempotencyStore
from router.memory_prompt_store import MemoryPromptStore
from router.memory_safety_store import MemorySafetyStore
from router.memory_store import MemoryStore
from router.memory_stream_store import MemoryStreamStore
from router.openai.chat import ChatEndpoint
from router.openai.completions import CompletionEndpoint
from router.openai.document_fields import retrieval_header
from router.openai.embeddings import embedding_request, embeddings_body
from router.openai.errors import error_body
from router.openai.models import model_list
from router.openai.moderations import moderation_body, moderation_texts
from router.openai.rate_limit_headers import rate_limit_headers
from router.pipeline import Pipeline
from router.ports.answer_cache import EntryStore, SemanticIndex
from router.ports.cache_metrics import CacheMetrics
from router.ports.clock import Clock, SystemClock
from router.ports.collection_store import CollectionStore
from router.ports.embedder import Embedder
from router.ports.idempotency_store import IdempotencyStore
from router.ports.jwks_source import JwksSource
from router.ports.prompt_store import PromptStore
from router.ports.safety_store import SafetyStore
from router.ports.state_store import StateStore
from router.ports.stream_store import StreamOwner, StreamStore
from router.ports.tier_backend import TierBackend
from router.ports.tier_scaling import TierScaling
from router.ports.tracer import NoTracer, Tracer
from router.ports.usage_metrics import NoUsageMetrics, UsageMetrics
from router.prompts.stored_prompts import StoredPrompts
from router.resume.detached_stream import Bodies
from router.resume.detached_streams import DetachedStreams
from router.retrieval.chunk_embedder import ChunkEmbedder
from router.retrieval.collections import Collections
from router.retrieval.retriever import Retriever
from router.review.review_wiring import ReviewService
from router.tiers.choose_tier import TierChoice
from router.tiers.quality_forecast import Forecaster
from router.transport.http_exchange import ClientLeftError, HttpExchange
from router.transport.requests_outliving_client import RequestsOutlivingClient
from safety.api import Guard, Oversight

logger = logging.getLogger(__name__)

T = TypeVar("T")

MODELS, MODERATIONS, EMBEDDINGS, STREAMS = "/v1/models", "/v1/moderations", "/v1/embeddings", "/v1/streams"
ENDPOINTS: Mapping[str, Endpoint] = {
    "/v1/chat/completions": ChatEndpoint(),
    "/v1/completions": CompletionEndpoint(),
}

MakeGuard = Callable[[Oversight, SafetyStore], Guard]
"""Makes the guard, with the way to the reviewers and the audit log, and the store that has the policies."""


@dataclass(frozen=True, slots=True)
class CacheParts:
    """The components of the answer cache.

    ``index`` finds stored questions of the same meaning; None: only exact matches are found. ``metrics`` counts
    look-ups; None: nothing is counted.
    """

    store: EntryStore
    index: SemanticIndex | None = None
    metrics: CacheMetrics | None = None


class ErrorBodies:
    """Writes the error bodies of one request, by ``error_of``, its wire format. ``usage`` returns the present token
    counts of its stream; None: the stream has not begun."""

    def __init__(self, error_of: Callable[[RefusalError], str]) -> None:
        self._error_of = error_of
        self.usage: Callable[[], Usage | None] = lambda: None

    def body(self, refusal: RefusalError) -> str:
        """Returns the error body of ``refusal``. It has the token counts of the request if tokens were generated."""
        used = self.usage()
        refusal.usage = used if used is not None and used.completion_tokens else None
        return self._error_of(refusal)


def answer_cache(config: AnswerCacheConfig, parts: CacheParts, clock: Clock) -> AnswerCache | None:
    """Returns the answer cache; None if ``config`` enables it for no tenant."""
    enabled = config.enabled or any(tenant.enabled for tenant in config.tenants.values())
    return AnswerCache(parts.store, config, clock, parts.metrics, parts.index) if enabled else None


def build_app(
    config: RouterConfig,
    backend: TierBackend,
    forecaster: Forecaster | None = None,
    clock: Clock | None = None,
    endpoints: Mapping[str, Endpoint] = ENDPOINTS,
    store: StateStore | None = None,
    jwks: JwksSource | None = None,
    make_guard: MakeGuard | None = None,
    metrics: UsageMetrics | None = None,
    reviews: ReviewService | None = None,
    embedder: Embedder | None = None,
    prompts: PromptStore | None = None,
    cache: CacheParts | None = None,
    collections: CollectionStore | None = None,
    streams: StreamStore | None = None,
    idempotency: IdempotencyStore | None = None,
    scaling: TierScaling | None = None,
    tracer: Tracer | None = None,
    overview: OverviewSources | None = None,
) -> ASGIApp:
    """Returns the ASGI application that serves the tiers of ``backend``.

    ``forecaster`` chooses the tier for ``model: auto``; None: the complexity score does. ``clock`` is the system's by
    default. ``endpoints`` maps paths to wire formats. ``store`` is the state that all routers share, by default the
    memory of this process. ``jwks`` reads the keys of the token issuer; it is needed if ``config.access.jwt`` is set.
    ``make_guard`` makes the guard that inspects requests and answers; None: nothing is inspected. ``metrics`` counts
    usage; None: nothing is counted. ``reviews`` has the review queue and the audit log, ``prompts`` the stored prompts,
    ``collections`` the documents that tenants keep, ``streams`` the events of detached streams, and ``idempotency`` the
    idempotency keys of requests. By default all of them are in the memory of this process. ``embedder`` makes vectors
    of texts; None: there are no embeddings, and passages are found by BM25 alone. ``cache`` are the parts of the answer
    cache, which is used if ``config.cache`` enables it; by default it stores in the memory of this process. ``scaling``
    decides about the numbers of replicas; None: they are fixed. ``tracer`` traces inference requests; None: nothing is
    traced. ``overview`` has what the cluster adds to the overview of administrators; None: nothing.

    Raises ValueError for a secret of ``config.review`` that cannot be read.
    """
    clock = clock or SystemClock()
    store = store or MemoryStore(clock)
    tiers = [tier.name for tier in backend.tiers()]
    choice = TierChoice(tiers, config.auto, forecaster, config.aliases)
    registry = KeyRegistry(store, clock)
    authenticator = make_authenticator(config, registry, jwks, clock)
    metrics = counted = RouterCounts(metrics or NoUsageMetrics())
    ledger = Ledger(store, config.prices, clock, metrics)
    reviews = reviews or ReviewService(MemorySafetyStore(clock), config.review, clock)
    guard = None if make_guard is None else make_guard(reviews.oversight, reviews.store)
    book = StoredPrompts(prompts or MemoryPromptStore(), clock, config.prompts.cache_s)
    parts = cache or CacheParts(MemoryEntryStore(clock))
    answers = answer_cache(config.cache, parts, clock)
    stored = None if answers is None else CacheOperations(parts.store, answers, reviews.record_change)
    retriever = make_retriever(config, collections or MemoryCollectionStore(), embedder, clock)
    detached = DetachedStreams(streams or MemoryStreamStore(clock), config.resume, config.tenants, clock)
    pipeline = Pipeline(
        config,
        backend,
        choice,
        authenticator,
        ledger,
        store,
        clock,
        guard,
        metrics,
        embedder,
        answers,
        prompts=book,
        retriever=retriever,
        streams=detached,
        idempotency=IdempotentRequests(idempotency or MemoryIdempotencyStore(clock), config.idempotency),
    )
    management = AdminApi(
        authenticator,
        registry,
        store,
        backend,
        ReviewApi(reviews.desk, reviews.audit, clock),
        PolicyApi(None if guard is None else guard.admin),
        PromptApi(book, reviews.record_change),
        CacheApi(stored, clock),
        ScalingApi(scaling, clock, reviews.record_change),
        OverviewApi(backend, store, scaling, clock, config.prices.currency, counted, overview or OverviewSources()),
        clock,
        config.prices.currency,
        {name: tenant.limits for name, tenant in config.tenants.items()},
        reviews.store.audit,
    )
    return App(
        config,
        backend,
        pipeline,
        management,
        store,
        reviews,
        clock,
        endpoints,
        embedder,
        retriever,
        detached,
        tracer or NoTracer(),
    )


def make_authenticator(
    config: RouterConfig, registry: KeyRegistry, jwks: JwksSource | None, clock: Clock
) -> Authenticator:
    """Returns the authenticator for keys of ``config`` and of ``registry``, and for tokens if the issuer is set."""
    jwt = config.access.jwt
    tokens = None if jwt is None or jwks is None else TokenVerifier(jwt, jwks, clock)
    return Authenticator(config.access, ConfigKeys(config.keys), registry, tokens, clock)


def make_retriever(config: RouterConfig, store: CollectionStore, embedder: Embedder | None, clock: Clock) -> Retriever:
    """Returns the retriever of passages from a request's documents and from the collections of ``store``.

    Without an ``embedder``, passages are found by their words alone.
    """
    chunk_embedder = None if embedder is None else ChunkEmbedder(embedder)
    named = Collections(config.retrieval, store, chunk_embedder, clock)
    return Retriever(config.retrieval, named, chunk_embedder)


class App:
    """The ASGI application. It uses no web framework: it has few paths, and every layer would cost time per token."""

    def __init__(
        self,
        config: RouterConfig,
        backend: TierBackend,
        pipeline: Pipeline,
        management: AdminApi,
        store: StateStore,
        reviews: ReviewService,
        clock: Clock,
        endpoints: Mapping[str, Endpoint],
        embedder: Embedder | None,
        retriever: Retriever,
        streams: DetachedStreams,
        tracer: Tracer,
    ) -> None:
        self._tracer = tracer
        self._streams = streams
        self._embedder = embedder
        self._collections = retriever.collections
        self._collection_api = CollectionApi(pipeline, retriever)
        self._endpoints = endpoints
        self._pipeline = pipeline
        self._management = management
        self._store = store
        self._reviews = reviews
        self._warn_at = config.limits.warn_at
        self._backend = backend
        self._timeout_s = config.request_timeout_s
        self._body_timeout_s = config.body_timeout_s
        self._clock = clock
        self._created = int(clock.now())
        self._detached = RequestsOutlivingClient()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._lifespan(receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1003})
        exchange = HttpExchange(scope, receive, send, self._body_timeout_s)
        path = exchange.path.rstrip("/")
        endpoint = self._endpoints.get(path)
        errors = ErrorBodies(error_body if endpoint is None else endpoint.error)
        try:
            await self._route(exchange, path, endpoint, errors)
        except ClientLeftError:
            logger.info("request %s: the client left", exchange.request_id)
        except asyncio.CancelledError:
            # Ray Serve ends a request by cancelling its task. Without this an open stream would just break off.
            cut = DeadlineExceededError("The request was ended by the server.", "request_cancelled")
            await exchange.fail(cut, errors.body(cut))
            raise
        except Exception as error:  # noqa: BLE001 the outermost handler: every error gets a body in the wire format
            refusal = refusal_of(error)
            _log(exchange, error, refusal)
            if isinstance(refusal, LimitExceededError):
                exchange.headers += rate_limit_headers(refusal.decision, self._warn_at)
            if refusal.refused is not None:
                exchange.headers.append((b"x-manta-refused", refusal.refused.encode("ascii", "replace")))
            if refusal.safety is not None:
                exchange.headers.append((b"x-manta-safety", refusal.safety.encode()))
            await exchange.fail(refusal, errors.body(refusal))

    async def _route(self, exchange: HttpExchange, path: str, endpoint: Endpoint | None, errors: ErrorBodies) -> None:
        """Answers the request by its path. Raises NotFoundError and MethodNotAllowedError, TimeoutError after
        ``request_timeout_s``, and what the handlers raise."""
        if endpoint is not None:
            _expect(exchange, "POST")
            await exchange.while_connected(self._serve_in_time(exchange, endpoint, errors))
        elif path == MODERATIONS:
            _expect(exchange, "POST")
            async with asyncio.timeout(self._timeout_s):
                await exchange.while_connected(self._moderate(exchange, path))
        elif path == EMBEDDINGS:
            _expect(exchange, "POST")
            async with asyncio.timeout(self._timeout_s):
                await self._embed(exchange, path)
        elif (methods := self._collection_api.methods(path)) is not None:
            _expect(exchange, *methods)
            async with asyncio.timeout(self._timeout_s):
                await self._manage_collections(exchange, path)
        elif path.startswith(STREAMS + "/"):
            _expect(exchange, "GET")
            async with asyncio.timeout(self._timeout_s):
                await exchange.while_connected(self._resume(exchange, path.removeprefix(STREAMS + "/")))
        elif path == "/healthz":
            _expect(exchange, "GET", "HEAD")
            await self._health(exchange)
        elif path == MODELS or path.startswith(MODELS + "/"):
            _expect(exchange, "GET", "HEAD")
            await self._models(exchange, path.removeprefix(MODELS).removeprefix("/"))
        elif (methods := self._management.methods(path)) is not None:
            _expect(exchange, *methods)
            async with asyncio.timeout(self._timeout_s):
                await self._manage(exchange, path)
        else:
            raise NotFoundError(f"Unknown request URL: {exchange.method} {_printable(exchange.path)}.", "unknown_url")

    async def _serve_in_time(self, exchange: HttpExchange, endpoint: Endpoint, errors: ErrorBodies) -> None:
        """As ``_serve``. The time is limited here, so that it is for a request whose client has left too."""
        async with asyncio.timeout(self._timeout_s):
            await self._serve(exchange, endpoint, errors)

    def _outlives(self, exchange: HttpExchange, shared: SharedAnswer, working: asyncio.Future[Any]) -> bool:
        """Has a request go on without its client while others wait for its answer. Returns whether it does."""
        if not shared.client_left():
            return False
        self._detached.keep(working, shared.unwanted, exchange.request_id)
        return True

    async def _serve(self, exchange: HttpExchange, endpoint: Endpoint, errors: ErrorBodies) -> None:
        """Answers an inference request. Raises what the pipeline raises, and ClientLeftError."""
        path, feature = exchange.path.rstrip("/"), exchange.header("x-manta-feature")
        control = exchange.header("cache-control")
        key = exchange.header("idempotency-key")
        call = Call(exchange.request_id, exchange.header("authorization"), exchange.body, path, feature, control, key)
        async with AsyncExitStack() as stack:
            parent = exchange.header("traceparent")
            batches = await stack.enter_async_context(
                aclosing(self._traced(call, partial(self._pipeline.run, endpoint=endpoint), parent))
            )
            routed = (await anext(batches))[0]
            if isinstance(routed, Repeated):
                exchange.headers.append((b"idempotent-replayed", b"true"))
                await exchange.answer_text(200, routed.body)
                return
            assert isinstance(routed, Routed), "the first event of an answer is Routed"
            exchange.headers += _headers(routed)
            exchange.late_headers = partial(_late_headers, routed)
            if routed.shared is not None and routed.owner is None:  # a detached stream goes on by itself
                exchange.outlives = partial(self._outlives, exchange, routed.shared)
            if routed.limits is not None:
                exchange.headers += rate_limit_headers(routed.limits, self._warn_at)
            errors.usage = routed.usage if routed.stream else errors.usage
            stamp = self._stamp(routed)
            writer = routed.writer(stamp)
            with _retried_only_unpaid(exchange, routed):
                if routed.owner is None:
                    await self._answer(exchange, routed, writer, batches)
                else:
                    stack.pop_all()  # the stream closes ``batches``, also after this client has left
                    await self._answer_detached(exchange, errors, routed.owner, stamp.id, _bodies(batches, writer))

    async def _traced(
        self, call: Call, work: Callable[[Call], AsyncGenerator[T, None]], parent: str | None
    ) -> AsyncGenerator[T, None]:
        """Yields what ``work`` yields, whose trace ends with it. ``parent`` is the caller's traceparent."""
        with self._tracer.request(parent) as trace:
            async with aclosing(work(replace(call, trace=trace))) as items:
                async for item in items:
                    yield item

    async def _answer(
        self,
        exchange: HttpExchange,
        routed: Routed,
        writer: AnswerWriter,
        batches: AsyncGenerator[Sequence[AnswerEvent], None],
    ) -> None:
        """Sends the response to an inference request, streamed or whole. ``batches`` has the events after Routed."""
        if routed.stream:
            await exchange.stream(batches, writer.chunks)
        else:
            answers, usage = await collect(batches)
            body = writer.whole(answers, usage)
            if routed.keep is not None:
                await routed.keep(body)
            await exchange.answer_text(200, body)

    async def _answer_detached(
        self, exchange: HttpExchange, errors: ErrorBodies, owner: StreamOwner, stream_id: str, bodies: Bodies
    ) -> None:
        """Streams an answer that goes on when the client leaves, and that it can resume."""
        exchange.headers.append((b"x-manta-stream", stream_id.encode()))
        stream = self._streams.begin(
            owner, stream_id, bodies, lambda error: errors.body(refusal_of(error)), self._timeout_s
        )
        async with aclosing(stream.live()) as parts:
            await exchange.stream_numbered(parts)

    async def _resume(self, exchange: HttpExchange, stream_id: str) -> None:
        """Answers /v1/streams/ID with the events after that of the header last-event-id, or with all.

        Raises what ``Pipeline.resume`` raises, and InvalidRequestError for a wrong header.
        """
        await exchange.body(0)
        last = exchange.header("last-event-id") or "0"
        if not re.fullmatch(r"[0-9]{1,9}", last):
            message = "The header last-event-id is not the id of an event."
            raise InvalidRequestError(message, "invalid_header", "last-event-id")
        call = Call(exchange.request_id, exchange.header("authorization"), exchange.body, STREAMS)
        # The id of the answer will do too: that of the stream after the format's prefix.
        async with aclosing(self._pipeline.resume(call, stream_id.rpartition("-")[2], int(last))) as parts:
            await exchange.stream_numbered(parts)

    def _stamp(self, routed: Routed) -> Stamp:
        return Stamp(
            uuid.uuid4().hex,
            int(self._clock.now()),
            routed.tier,
            routed.prompt_details,
            routed.retrieval,
            prompts=routed.prompts,
            failovers=routed.failovers,
        )

    async def _health(self, exchange: HttpExchange) -> None:
        """Answers /healthz: 200 when every tier has a ready replica, or may be without one; otherwise 503."""
        tiers = self._backend.snapshot()
        ready = bool(tiers) and all(tier.available for tier in tiers)
        document = {
            "status": "ready" if ready else "starting",
            "tiers": {tier.name: {"ready": tier.available, "replicas": len(tier.replicas)} for tier in tiers},
        }
        await exchange.answer(200 if ready else 503, document)

    async def _models(self, exchange: HttpExchange, name: str) -> None:
        """Answers /v1/models with the models that the API key may use, or with the one called ``name``.

        Raises AuthenticationError, and NotFoundError for a model that the key may not use or that does not exist.
        """
        names = await self._pipeline.models(exchange.header("authorization"))
        models = model_list(names, self._backend.tiers(), self._backend.snapshot(), self._created, self._embedder)
        if not name:
            return await exchange.answer(200, models)
        found = next((model for model in models["data"] if model["id"] == name), None)
        if found is None:
            raise NotFoundError(f"The model '{_printable(name)}' does not exist.", "model_not_found", "model")
        return await exchange.answer(200, found)

    async def _moderate(self, exchange: HttpExchange, path: str) -> None:
        """Answers /v1/moderations. Raises what ``Pipeline.moderate`` raises."""
        feature = exchange.header("x-manta-feature")
        call = Call(exchange.request_id, exchange.header("authorization"), exchange.body, path, feature)
        with self._tracer.request(exchange.header("traceparent")) as trace:
            model, results = await self._pipeline.moderate(replace(call, trace=trace), moderation_texts)
        await exchange.answer_text(200, moderation_body(uuid.uuid4().hex, model, results))

    async def _embed(self, exchange: HttpExchange, path: str) -> None:
        """Answers /v1/embeddings. Raises what ``Pipeline.embed`` raises, and ClientLeftError."""
        feature = exchange.header("x-manta-feature")
        call = Call(exchange.request_id, exchange.header("authorization"), exchange.body, path, feature)
        embed, parent = partial(self._pipeline.embed, parse=embedding_request), exchange.header("traceparent")
        async with aclosing(self._traced(call, embed, parent)) as steps:
            accepted = await anext(steps)
            assert isinstance(accepted, EmbeddingAccepted), "the first step is EmbeddingAccepted"
            if accepted.limits is not None:
                exchange.headers += rate_limit_headers(accepted.limits, self._warn_at)
            result = await exchange.while_connected(anext(steps))
            assert isinstance(result, EmbeddingResult), "the second step is the result"
            await anext(steps, None)  # its end, which is that of its trace
        await exchange.answer_text(200, await asyncio.to_thread(embeddings_body, result))

    async def _manage_collections(self, exchange: HttpExchange, path: str) -> None:
        """Answers /v1/collections. Raises what ``CollectionApi.answer`` raises."""
        feature = exchange.header("x-manta-feature")
        call = Call(exchange.request_id, exchange.header("authorization"), exchange.body, COLLECTIONS, feature)
        asked = CollectionCall(exchange.method, path, exchange.parameters(), call)
        await exchange.answer(200, await self._collection_api.answer(asked))

    async def _manage(self, exchange: HttpExchange, path: str) -> None:
        """Answers /admin/v1 and /v1/usage. Raises what ``AdminApi.handle`` raises."""
        credentials = exchange.header("authorization")
        call = AdminCall(exchange.method, path, exchange.parameters(), credentials, exchange.body)
        reply = await self._management.handle(call)
        exchange.headers.append((b"cache-control", b"no-store"))  # a new key is shown once, and kept by no proxy
        await exchange.answer_text(200, reply.body, reply.media_type)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        """Implements ASGI's lifespan: starts store, pipeline and backend before the first request, and closes them
        after the last."""
        while True:
            message = await receive()
            stopping = message["type"] == "lifespan.shutdown"
            await (self._close() if stopping else self._start())
            await send({"type": f"{message['type']}.complete"})
            if stopping:
                return

    async def _start(self) -> None:
        await self._store.start()
        await self._reviews.start()
        await self._collections.start()
        await self._pipeline.start()
        await self._backend.start(self._pipeline.adopt)

    async def _close(self) -> None:
        await self._detached.close()
        await self._pipeline.close()
        await self._backend.close()
        await self._collections.close()
        await self._reviews.close()
        await self._store.close()


async def _bodies(batches: AsyncGenerator[Sequence[AnswerEvent], None], writer: AnswerWriter) -> Bodies:
    """Yields the bodies that ``writer`` makes of each batch."""
    async with aclosing(batches):
        async for events in batches:
            yield writer.chunks(events)


def _headers(routed: Routed) -> list[tuple[bytes, bytes]]:
    """Returns Manta's response headers: the chosen tier, why, and what the request sets without effect."""
    headers = [
        (b"x-manta-tier", routed.tier.encode()),
        (b"x-manta-route-reason", routed.reason.encode("ascii", "replace")),
        (b"x-manta-safety", routed.safety.encode()),
        (b"x-manta-cache", routed.cache.encode("ascii", "replace")),
    ]
    if routed.template is not None:
        headers.append((b"x-manta-prompt", routed.template.encode()))
    if routed.cache_entry:
        headers.append((b"x-manta-cache-entry", routed.cache_entry.encode()))
    if routed.retrieval is not None:
        headers.append((b"x-manta-retrieval", retrieval_header(routed.retrieval).encode()))
    if routed.ignored:
        headers.append((b"x-manta-ignored", ", ".join(routed.ignored).encode("ascii", "replace")))
    return headers


def _late_headers(routed: Routed) -> list[tuple[bytes, bytes]]:
    """Returns the headers that are known only when the answer begins: a conversation may be shortened until then, and
    another replica may have gone on with the request."""
    headers = []
    if (context := routed.context()) is not None:
        headers.append((b"x-manta-context", context.encode()))
    count, other_version = routed.failovers()
    if count:
        headers.append((b"x-manta-failovers", f"{count}{'; other_version' if other_version else ''}".encode()))
    return headers


@contextmanager
def _retried_only_unpaid(exchange: HttpExchange, routed: Routed) -> Iterator[None]:
    """Tells client libraries not to repeat a request by themselves that fails after it has generated tokens: they would
    be paid for twice. The header is that of OpenAI's libraries; a client may still repeat the request itself."""
    try:
        yield
    except BaseException:  # a time-out and an end by the server are cancellations here
        if routed.output_tokens():
            exchange.headers.append((b"x-should-retry", b"false"))
        raise


def _log(exchange: HttpExchange, error: Exception, refusal: RefusalError) -> None:
    """Logs errors of the service. Internal ones have a traceback, but not their message, which may quote a prompt."""
    if refusal.kind is RefusalKind.INTERNAL:
        frames = "".join(traceback.format_tb(error.__traceback__))
        logger.error("request %s failed: %s, %s\n%s", exchange.request_id, refusal.code, type(error).__name__, frames)
    elif refusal.kind is RefusalKind.UNAVAILABLE:
        logger.warning("request %s failed: %s", exchange.request_id, refusal.code)


def _expect(exchange: HttpExchange, *methods: str) -> None:
    """Raises MethodNotAllowedError, with the header ``allow``, unless the request has one of ``methods``."""
    if exchange.method not in methods:
        exchange.headers.append((b"allow", ", ".join(methods).encode()))
        message = f"Not allowed to {exchange.method} on {_printable(exchange.path)}."
        raise MethodNotAllowedError(message, "method_not_allowed")


def _printable(text: str) -> str:
    """Returns a client's text as it may be repeated in an error: ASCII, at most 128 characters."""
    return text.encode("ascii", "backslashreplace").decode()[:128]
