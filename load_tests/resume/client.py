"""A client that loses the connection of a detached stream, and reads the rest from another router."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import httpx

from load_tests.chaos.client import PATH
from load_tests.chaos.mix import Request
from load_tests.chaos.transcript import Transcript

LAST_EVENT_ID = "last-event-id"


@dataclass(slots=True)
class CutStream:
    """A stream that is cut after ``after`` events, and what its client got of it. ``opened`` is set when its response
    has begun, or failed. ``waited_s``: the seconds from the second connection to its first bytes; None: there was no
    second connection, since the stream had ended before the cut, or has failed."""

    request: Request
    after: int
    stream_id: str = ""
    last: int = 0
    transcript: Transcript = field(default_factory=Transcript)
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    waited_s: float | None = None

    def take(self, number: int, data: str) -> None:
        """Adds an event. Raises ValueError for one whose number is not the next, or whose data is not JSON."""
        if number != self.last + 1:
            raise ValueError(f"event {number} came after event {self.last}")
        self.last = number
        self.transcript.take(data, time.perf_counter())


async def run_cut(
    stream: CutStream, first: httpx.AsyncClient, second: httpx.AsyncClient, switched: asyncio.Event, timeout_s: float
) -> None:
    """Sends the request to ``first`` and drops the connection after some events; once ``switched`` is set, reads the
    rest from ``second``. What goes wrong is a problem of the transcript."""
    try:
        async with asyncio.timeout(timeout_s):
            await _begin(stream, first)
            await switched.wait()
            if stream.transcript.problem is None and not stream.transcript.done:
                await _resume(stream, second)
        stream.transcript.close()
    except TimeoutError:
        _note(stream, f"no end within {timeout_s:g} s")
    except httpx.TransportError as error:
        _note(stream, f"the connection broke: {type(error).__name__}")
    except ValueError as error:
        _note(stream, f"malformed: {error}")
    finally:
        stream.opened.set()


async def status_of(client: httpx.AsyncClient, stream_id: str, key: str | None = None) -> int:
    """Returns the status with which ``client``, or another one with the API key ``key``, may resume a stream."""
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    return (await client.get(f"/v1/streams/{stream_id}", headers=headers)).status_code


async def _begin(stream: CutStream, client: httpx.AsyncClient) -> None:
    async with client.stream("POST", PATH, json={**stream.request.body, "detach": True}) as response:
        if not await _accepted(stream, response):
            return
        stream.stream_id = response.headers["x-manta-stream"]
        stream.opened.set()
        if stream.after:
            async for number, data in _events(response):
                stream.take(number, data)
                if stream.last >= stream.after:
                    return


async def _resume(stream: CutStream, client: httpx.AsyncClient) -> None:
    began = time.perf_counter()
    headers = {LAST_EVENT_ID: str(stream.last)}
    async with client.stream("GET", f"/v1/streams/{stream.stream_id}", headers=headers) as response:
        if await _accepted(stream, response):
            stream.waited_s = time.perf_counter() - began
            async for number, data in _events(response):
                stream.take(number, data)


async def _accepted(stream: CutStream, response: httpx.Response) -> bool:
    if response.status_code != 200:
        text = (await response.aread()).decode(errors="replace")
        _note(stream, f"status {response.status_code}: {text[:300]}")
    return response.status_code == 200


async def _events(response: httpx.Response) -> AsyncIterator[tuple[int, str]]:
    """Yields the number and the data of each event. Raises ValueError for one without a number."""
    rest = b""
    async for piece in response.aiter_bytes():
        *frames, rest = (rest + piece).split(b"\n\n")
        for frame in frames:
            lines = [line for line in frame.decode().split("\n") if not line.startswith(":")]  # without comments
            head, _, data = "\n".join(lines).partition("\n")
            if not head.startswith("id: ") or not data.startswith("data: "):
                raise ValueError(f"not an event with an id: {frame[:80]!r}")
            yield int(head[4:]), data[6:]


def _note(stream: CutStream, problem: str) -> None:
    stream.transcript.problem = stream.transcript.problem or problem
