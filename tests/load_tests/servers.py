"""A small real HTTP server that answers chat completions well, or badly in a way chosen by the test."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from enum import Enum, auto
from typing import Any


class Fault(Enum):
    """The ways in which a server misbehaves."""

    NONE = auto()
    NO_DONE = auto()
    AFTER_DONE = auto()
    NO_FINISH = auto()
    NO_USAGE = auto()
    WRONG_COUNT = auto()
    ERROR_FRAME = auto()
    NOT_JSON = auto()
    TRUNCATED = auto()
    STATUS_500 = auto()
    NOT_HTTP = auto()
    HANGS = auto()
    WRONG_TEXT_UNDER_LOAD = auto()


WORDS = 8  # of every answer, one token each


class ChatServer:
    """Answers prompt P with eight words made from P, each in a chunk of its own."""

    def __init__(self, fault: Fault = Fault.NONE, pause_s: float = 0.0) -> None:
        self.port = 0
        self.asked: list[str] = []
        self._fault = fault
        self._pause_s = pause_s
        self._open = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Connections are kept alive; a request is answered while the client stays."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line[:15] == b"content-length:")
                body = json.loads(await reader.readexactly(length))
                self._open += 1
                try:
                    if not await self._answer(writer, body):
                        return
                finally:
                    self._open -= 1
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, body: dict[str, Any]) -> bool:
        prompt = body["messages"][0]["content"]
        self.asked.append(prompt)
        if self._fault is Fault.HANGS:
            await asyncio.sleep(60)
        if self._fault is Fault.NOT_HTTP:
            writer.write(b"EHLO there\r\n\r\n")
            return False
        if self._fault is Fault.STATUS_500:
            writer.write(plain(500, b'{"error": {"message": "no"}}'))
            return True
        if not body["stream"]:
            writer.write(plain(200, json.dumps(self._whole(prompt)).encode()))
            return True
        return await self._stream(writer, prompt)

    async def _stream(self, writer: asyncio.StreamWriter, prompt: str) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for count, data in enumerate(self._frames(prompt)):
            if self._fault is Fault.TRUNCATED and count == 3:
                writer.write(b"40\r\ndata: {")
                return False
            frame = b"data: " + data + b"\n\n"
            writer.write(f"{len(frame):x}\r\n".encode() + frame + b"\r\n")
            await writer.drain()
            await asyncio.sleep(self._pause_s)
        writer.write(b"0\r\n\r\n")
        return True

    def _frames(self, prompt: str) -> Iterable[bytes]:
        fault = self._fault
        for number, word in enumerate(self._words(prompt)):
            yield json.dumps({"choices": [{"delta": {"content": word}, "finish_reason": None}]}).encode()
            if number == 2 and fault is Fault.ERROR_FRAME:
                yield b'{"error": {"message": "the engine has died"}}'
            if number == 2 and fault is Fault.NOT_JSON:
                yield b'{"choices": [{'
        if fault is not Fault.NO_FINISH:
            yield b'{"choices": [{"delta": {}, "finish_reason": "length"}]}'
        if fault is not Fault.NO_USAGE:
            yield json.dumps({"choices": [], "usage": self._usage()}).encode()
        if fault is not Fault.NO_DONE:
            yield b"[DONE]"
        if fault is Fault.AFTER_DONE:
            yield b'{"choices": []}'

    def _words(self, prompt: str) -> list[str]:
        words = [f"{prompt}/{number} " for number in range(WORDS)]
        if self._fault is Fault.WRONG_TEXT_UNDER_LOAD and self._open > 1 and prompt.endswith("2"):
            words[5] = "someone else's "
        return words

    def _whole(self, prompt: str) -> dict[str, Any]:
        message = {"role": "assistant", "content": "".join(self._words(prompt))}
        return {"choices": [{"message": message, "finish_reason": "length"}], "usage": self._usage()}

    def _usage(self) -> dict[str, int]:
        return {"prompt_tokens": 3, "completion_tokens": WORDS + (self._fault is Fault.WRONG_COUNT)}


def plain(status: int, body: bytes) -> bytes:
    """A response with a length."""
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@asynccontextmanager
async def chat_server(fault: Fault = Fault.NONE, pause_s: float = 0.0) -> AsyncIterator[ChatServer]:
    """A server on a free port of this machine."""
    chat = ChatServer(fault, pause_s)
    connections: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            connections.add(task)
        await chat.serve(reader, writer)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    chat.port = server.sockets[0].getsockname()[1]
    try:
        yield chat
    finally:
        server.close()
        for task in itertools.chain(connections):
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
