"""Requests of the measurements: streams that are read to some point, and calls of the admin API."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

import httpx

TIMEOUT_S = 60.0
READ_BYTES = 512  # of a stream that is left early, about two events


class Leave(StrEnum):
    """How a client ends a stream before its end."""

    CLOSE = "close"  # the connection is closed in order, as a library does for a cancelled stream
    VANISH = "vanish"  # the connection is reset, as when the client's machine is gone


@dataclass(slots=True)
class Exchange:
    """What came of a request. ``status`` 0: the connection broke before an answer. ``first_s``: until the first piece
    of the body, in seconds. ``events``: of the stream that were read. ``whole``: the body came to its end. ``headers``:
    of the answer, names in lower case."""

    status: int = 0
    first_s: float | None = None
    events: int = 0
    whole: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)


async def stream(
    url: str,
    key: str,
    body: Mapping[str, Any],
    leave_after: int | None = None,
    leave: Leave = Leave.CLOSE,
    path: str = "/v1/completions",
) -> Exchange:
    """Sends a completion request and reads its stream, whole or until ``leave_after`` events have come.

    Events that come together are read together, so that it may leave a few later.
    """
    target, sent = urlsplit(url), json.dumps({"model": "fast", "stream": True, **body}).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: {target.netloc}\r\nauthorization: Bearer {key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(sent)}\r\nconnection: close\r\n\r\n"
    )
    exchange, started = Exchange(), time.perf_counter()
    try:
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await asyncio.open_connection(target.hostname, target.port)
            try:
                writer.write(head.encode() + sent)
                status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                exchange.status = int(status.split(" ", 2)[1])
                exchange.headers = {
                    name.lower(): text for name, _, text in (line.partition(": ") for line in lines if line)
                }
                while leave_after is None or exchange.events < leave_after:
                    piece = await reader.read(READ_BYTES if leave_after is not None else 65536)
                    if not piece:
                        return exchange
                    exchange.first_s = exchange.first_s or time.perf_counter() - started
                    exchange.events += piece.count(b"data: ")
                    exchange.whole = exchange.whole or piece.endswith(b"0\r\n\r\n")
                if leave is Leave.VANISH:
                    writer.transport.abort()
            finally:
                writer.close()
    except (OSError, asyncio.IncompleteReadError, TimeoutError):
        pass  # what was read by then is the result
    return exchange


class Admin:
    """The admin API of the service at ``url``."""

    def __init__(self, url: str, key: str) -> None:
        self._http = httpx.Client(base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=TIMEOUT_S)

    def create_key(self, tenant: str, limits: Mapping[str, float]) -> str:
        """Creates a key with limits and returns it."""
        answer = self._http.post("/admin/v1/keys", json={"tenant": tenant, "team": "core", "limits": limits})
        return str(answer.raise_for_status().json()["key"])

    def usage(self, tenant: str, start: float) -> dict[str, float]:
        """Returns the sums of a tenant from ``start`` on, in seconds since the epoch, by the name of the amount."""
        rows = self._rows(tenant, "tenant", start)
        names = ("requests", "input_tokens", "cached_input_tokens", "output_tokens", "cost")
        return {name: sum(row[name] for row in rows) for name in names}

    def outcomes(self, tenants: Sequence[str], start: float) -> dict[str, int]:
        """Returns the number of entries of some tenants from ``start`` on, by how their requests ended."""
        counts: Counter[str] = Counter()
        for row in (row for tenant in tenants for row in self._rows(tenant, "outcome", start)):
            counts[row["outcome"]] += row["requests"]
        return dict(counts)

    def _rows(self, tenant: str, group: str, start: float) -> list[dict[str, Any]]:
        query = {"tenant": tenant, "group_by": group, "bucket_width": "1m", "start": str(int(start) // 60 * 60)}
        rows: list[dict[str, Any]] = self._http.get("/admin/v1/usage", params=query).raise_for_status().json()["data"]
        return rows
