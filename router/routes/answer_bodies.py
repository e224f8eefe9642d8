"""``AnswerBodies``: the events of a detached answer in their wire format, for the stream that outlives its client."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any

from router.answer_events import AnswerEvent, AnswerWriter


class AnswerBodies(AsyncGenerator[Sequence[str], None]):
    """The bodies that ``writer`` makes of each batch. Closing it closes ``batches``, whether any was asked for or
    not."""

    def __init__(self, batches: AsyncGenerator[Sequence[AnswerEvent], None], writer: AnswerWriter) -> None:
        self._batches = batches
        self._writer = writer

    async def asend(self, value: None) -> Sequence[str]:
        return self._writer.chunks(await self._batches.asend(value))

    async def athrow(self, *error: Any) -> Sequence[str]:
        return self._writer.chunks(await self._batches.athrow(*error))

    async def aclose(self) -> None:
        await self._batches.aclose()
