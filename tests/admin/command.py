"""The command ``manta`` on the admin API of a router in this process."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
from typer.testing import CliRunner, Result

from cluster.admin.client import AdminClient
from cluster.admin.main import app
from tests.access.service import ADMIN, Service


class InProcess(httpx.BaseTransport):
    """Calls an ASGI application from synchronous code."""

    def __init__(self, service: Service) -> None:
        self._transport = httpx.ASGITransport(service.app)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        async def call() -> httpx.Response:
            async_request = httpx.Request(request.method, request.url, headers=request.headers, content=request.read())
            answer = await self._transport.handle_async_request(async_request)
            return httpx.Response(answer.status_code, headers=answer.headers, content=await answer.aread())

        return asyncio.run(call())


def manta(service: Service, *arguments: str, key: str = ADMIN) -> Result:
    client = AdminClient("http://test", key, InProcess(service))
    return CliRunner(env={"COLUMNS": "80"}).invoke(app, list(arguments), obj=client)


def document(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found
