"""What is put around the router's ASGI application in a Serve deployment."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cluster.autoscaling.busy_counter import BusyCounter
from cluster.telemetry.log_context import logged_request
from router.request_id import request_id


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
