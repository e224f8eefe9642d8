"""Sends the requests of a run, all at once, and keeps what comes of each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence

import httpx

from load_tests.chaos.mix import Request
from load_tests.chaos.transcript import Transcript

PATH = "/v1/chat/completions"


async def send_all(
    url: str, key: str, requests: Sequence[Request], timeout_s: float, on_event: Callable[[], None] = lambda: None
) -> list[Transcript]:
    """Returns a transcript of each request, in order. Times are on the clock of ``time.perf_counter``.

    ``on_event`` is called for each event of a stream. A request that is not answered within ``timeout_s`` seconds, or
    whose connection breaks, has a problem in its transcript.
    """
    limits = httpx.Limits(max_connections=None)
    headers = {"authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=None, limits=limits, trust_env=False) as client:
        return await asyncio.gather(*(_send(client, request, timeout_s, on_event) for request in requests))


async def _send(
    client: httpx.AsyncClient, request: Request, timeout_s: float, on_event: Callable[[], None]
) -> Transcript:
    transcript = Transcript()
    try:
        async with (
            asyncio.timeout(timeout_s),
            client.stream("POST", PATH, json=dict(request.body)) as response,
        ):
            await _read(response, transcript, on_event)
        transcript.close()
    except TimeoutError:
        transcript.problem = transcript.problem or f"no end within {timeout_s:g} s"
    except httpx.TransportError as error:
        transcript.problem = transcript.problem or f"the connection broke: {type(error).__name__}"
    except ValueError as error:
        transcript.problem = transcript.problem or f"malformed: {error}"
    return transcript


async def _read(response: httpx.Response, transcript: Transcript, on_event: Callable[[], None]) -> None:
    if response.status_code != 200:
        text = (await response.aread()).decode(errors="replace")
        transcript.problem = f"status {response.status_code}: {text[:300]}"
    elif "text/event-stream" not in response.headers.get("content-type", ""):
        transcript.take_whole((await response.aread()).decode(), time.perf_counter())
    else:
        async for line in _lines(response.aiter_bytes()):
            if line.startswith(b"data:"):
                transcript.take(line.removeprefix(b"data:").decode().strip(), time.perf_counter())
                on_event()


async def _lines(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yields whole lines. Those of httpx end at other characters too, which JSON may have in its strings."""
    rest = b""
    async for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line
