"""No tenant fills a router: with streams, or with bodies that arrive slowly, as in theopenco/llmgateway#2668."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from router.access.authenticator import Authenticator
from router.access.config_api_keys import ConfigKeys
from router.access.key_registry import KeyRegistry
from router.app_factory import build_app
from router.config.access import AccessConfig
from router.config.keys import KeyConfig
from router.config.resume import ResumeConfig
from router.config.router import RouterConfig
from router.errors import RateLimitError
from router.inference_request import Call
from router.limits.router_concurrency import ConcurrencyLimit
from router.memory_store import MemoryStore
from router.memory_stream_store import MemoryStreamStore
from router.ports.clock import SystemClock
from router.requests.stream_requests import StreamRequests
from router.resume.detached_streams import DetachedStreams
from tests.router.backend import ScriptedBackend


class Router:
    """The places of a router, as requests take and return them."""

    def __init__(self, limit: int) -> None:
        self.limit = ConcurrencyLimit(limit)

    @contextmanager
    def request(self, tenant: str) -> Any:
        with self.limit.admit(), self.limit.share(tenant):
            yield

    def fill(self, stack: ExitStack, tenant: str, most: int = 10_000) -> int:
        """How many requests of a tenant are taken, one after the other, until one is refused."""
        for taken in range(most):
            try:
                stack.enter_context(self.request(tenant))
            except RateLimitError:
                return taken
        return most


def test_one_tenant_leaves_the_last_eighth_to_others() -> None:
    router = Router(80)
    with ExitStack() as stack:
        assert router.fill(stack, "flood") == 70
        assert router.fill(stack, "other") == 10
        assert router.limit.active == 80
    assert router.limit.active == 0


def test_a_tenant_with_few_requests_is_taken_as_long_as_there_is_a_place() -> None:
    router = Router(80)
    with ExitStack() as stack:
        for tenant in ("a", "b", "c"):
            assert router.fill(stack, tenant, 20) == 20
        assert router.fill(stack, "d", 10) == 10
        assert router.fill(stack, "a") == 0  # it has its share of the crowded router
        assert router.fill(stack, "e", 3) == 3


def test_places_that_come_back_are_anybodys() -> None:
    router = Router(80)
    with ExitStack() as stack:
        router.fill(stack, "flood")
    with ExitStack() as stack:
        assert router.fill(stack, "flood") == 70


@pytest.mark.parametrize("limit", [1, 2, 7])
def test_of_few_places_none_is_kept(limit: int) -> None:
    router = Router(limit)
    with ExitStack() as stack:
        assert router.fill(stack, "only") == limit


def test_the_refusal_says_why() -> None:
    router = Router(80)
    with ExitStack() as stack:
        router.fill(stack, "flood")
        with pytest.raises(RateLimitError) as refused, router.request("flood"):
            pass
    assert refused.value.refused == "reason=router_share; value=70; limit=40"
    assert (refused.value.code, refused.value.retry_after_s) == ("overloaded", 1)


async def test_who_reads_a_stream_again_has_a_place_of_its_tenant() -> None:
    router, clock = Router(16), SystemClock()
    keys = ConfigKeys((KeyConfig(key="sk-flood", tenant="flood", team="core"),))
    authenticator = Authenticator(AccessConfig(), keys, KeyRegistry(MemoryStore(clock), clock), None, clock)
    streams = DetachedStreams(MemoryStreamStore(clock), ResumeConfig(), {}, clock)
    reading = StreamRequests(authenticator, router.limit, streams)

    async def body(limit: int) -> bytes:
        raise AssertionError("it has none")

    with ExitStack() as stack:
        assert router.fill(stack, "flood") == 14
        with pytest.raises(RateLimitError) as refused:
            await anext(reading.run(Call("r", "Bearer sk-flood", body), "s", 0))
    assert refused.value.refused == "reason=router_share; value=14; limit=8"


async def test_bodies_that_arrive_slowly_keep_nobody_else_out() -> None:
    keys = tuple(KeyConfig(key=f"sk-{name}", tenant=name, team="core") for name in ("flood", "other"))
    app = build_app(RouterConfig(keys=keys, max_concurrent_requests=16), ScriptedBackend())
    never = asyncio.Event()

    def asking(key: str, body: bytes | None) -> tuple[Callable[[], Any], list[Any]]:
        messages, sent = [] if body is None else [{"type": "http.request", "body": body}], list[Any]()

        async def receive() -> Any:
            if not messages:
                await never.wait()
            return messages.pop()

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(b"authorization", b"Bearer sk-" + key.encode())]
        scope = {"type": "http", "path": "/v1/completions", "method": "POST", "headers": headers}
        return lambda: app(scope, receive, send), sent

    slow = [asking("flood", None) for _ in range(16)]
    waiting = [asyncio.create_task(call()) for call, _ in slow]
    await asyncio.sleep(0.01)
    call, sent = asking("other", b'{"model": "fast", "prompt": "Hi"}')
    await call()
    refused = [messages[0]["status"] for _, messages in slow if messages]
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)

    assert sent[0]["status"] == 200
    assert refused == [429, 429]
