"""``InferenceRoute``: answers chat completions and completions, streamed, whole or detached from the client."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing, contextmanager
from functools import partial
from typing import Any

from router.answer_events import AnswerEvent, AnswerWriter, Repeated, Routed, SharedAnswer, Stamp
from router.cancellation_shield import finished
from router.endpoint_protocol import Endpoint
from router.errors import RefusalError, refusal_of
from router.generation.collect import collect
from router.inference_request import Call
from router.openai.rate_limit_headers import rate_limit_headers
from router.pipeline import Pipeline
from router.ports.clock import Clock
from router.ports.stream_store import StreamOwner
from router.ports.tracer import Tracer
from router.resume.detached_stream import Bodies
from router.resume.detached_streams import DetachedStreams
from router.routes.answer_bodies import AnswerBodies
from router.routes.error_bodies import ErrorBodies
from router.routes.response_headers import headers, late_headers
from router.routes.traced_work import traced
from router.routes.whole_bodies import WholeBodies
from router.transport.http_exchange import HttpExchange
from router.transport.requests_outliving_client import RequestsOutlivingClient


class InferenceRoute:
    """Answers the requests of one endpoint. ``timeout_s`` limits each; ``warn_at`` is the share of a limit from which
    headers warn; ``outliving`` keeps those whose client has left while others wait for their answer."""

    def __init__(
        self,
        path: str,
        endpoint: Endpoint,
        pipeline: Pipeline,
        streams: DetachedStreams,
        outliving: RequestsOutlivingClient,
        tracer: Tracer,
        clock: Clock,
        timeout_s: float,
        warn_at: float,
    ) -> None:
        self._path = path
        self._endpoint = endpoint
        self._pipeline = pipeline
        self._streams = streams
        self._outliving = outliving
        self._tracer = tracer
        self._clock = clock
        self._timeout_s = timeout_s
        self._warn_at = warn_at
        self._bodies = WholeBodies()

    def methods(self, path: str) -> Sequence[str] | None:
        return ("POST",) if path == self._path else None

    def error_body(self, refusal: RefusalError) -> str:
        return self._endpoint.error(refusal)

    async def answer(self, exchange: HttpExchange, path: str, errors: ErrorBodies) -> None:
        """Answers the request. Raises what ``Pipeline.run`` raises, TimeoutError and ClientLeftError."""
        await exchange.while_connected(self._serve_in_time(exchange, path, errors))

    async def _serve_in_time(self, exchange: HttpExchange, path: str, errors: ErrorBodies) -> None:
        """As ``_serve``. The time is limited here, so that it is for a request whose client has left too."""
        ends_at = asyncio.get_running_loop().time() + self._timeout_s
        async with asyncio.timeout_at(ends_at):
            await self._serve(exchange, path, errors, ends_at)

    async def _serve(self, exchange: HttpExchange, path: str, errors: ErrorBodies, ends_at: float) -> None:
        feature, control = exchange.header("x-manta-feature"), exchange.header("cache-control")
        key = exchange.header("idempotency-key")
        credentials = exchange.header("authorization")
        call = Call(exchange.request_id, credentials, exchange.body, path, feature, control, key, ends_at=ends_at)
        async with AsyncExitStack() as stack:
            run = partial(self._pipeline.run, endpoint=self._endpoint)
            batches = await stack.enter_async_context(aclosing(traced(self._tracer, call, run, exchange)))
            routed = (await anext(batches))[0]
            if isinstance(routed, Repeated):
                await anext(batches, None)  # their end, which is that of the trace
                exchange.headers.append((b"idempotent-replayed", b"true"))
                await exchange.answer_text(200, routed.body)
                return
            assert isinstance(routed, Routed), "the first event of an answer is Routed"
            self._add_headers(exchange, routed)
            errors.usage = routed.usage if routed.stream else errors.usage
            stamp = self._stamp(routed)
            writer = routed.writer(stamp)
            with _retried_only_unpaid(exchange, routed):
                if routed.owner is None:
                    await self._answer(exchange, routed, writer, batches)
                else:
                    stack.pop_all()  # the stream closes ``batches``, also after this client has left
                    await self._answer_detached(exchange, errors, routed.owner, stamp.id, AnswerBodies(batches, writer))

    def _add_headers(self, exchange: HttpExchange, routed: Routed) -> None:
        exchange.headers += headers(routed)
        exchange.late_headers = partial(late_headers, routed)
        if routed.shared is not None and routed.owner is None:  # a detached stream goes on by itself
            exchange.outlives = partial(self._outlives, exchange, routed.shared)
        if routed.limits is not None:
            exchange.headers += rate_limit_headers(routed.limits, self._warn_at)

    def _outlives(self, exchange: HttpExchange, shared: SharedAnswer, working: asyncio.Future[Any]) -> bool:
        """Has a request go on without its client while others wait for its answer. Returns whether it does."""
        if not shared.client_left():
            return False
        self._outliving.keep(working, shared.unwanted, exchange.request_id)
        return True

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
            body = self._bodies.write(writer, *await collect(batches))
            # An answer that was paid for is kept even if the client leaves while it is written.
            text = await (body if routed.keep is None else finished(_kept(body, routed.keep)))
            await exchange.answer_text(200, text)

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

    def _stamp(self, routed: Routed) -> Stamp:
        return Stamp(
            uuid.uuid4().hex,
            int(self._clock.now()),
            routed.tier,
            routed.prompt_details,
            routed.retrieval,
            prompts=routed.prompts,
            failovers=routed.failovers,
            reasoning_tokens=routed.reasoning_tokens,
        )


async def _kept(body: Awaitable[str], keep: Callable[[str], Awaitable[None]]) -> str:
    """Returns ``body``, which ``keep`` stores."""
    written = await body
    await keep(written)
    return written


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
