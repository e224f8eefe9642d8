"""``SteadyBackend``: a tier in the router's own process, which generates one token per step."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Sequence

from engine.api import Delta, FinishReason, GenerationRequest, Usage
from load_tests.overhead.stub import prompt_tokens
from router.ports.tier_backend import OnOrphans, OnPlaced, OnUsage, TierDescription, TierSnapshot

CONTEXT = 4096  # tokens


class SteadyBackend:
    """Implements ``TierBackend`` with one tier, ``fast``. A step takes ``step_s`` seconds, whatever the load. Answers
    are as long as they may be, and end with ``reason``."""

    def __init__(self, step_s: float, reason: FinishReason = FinishReason.LENGTH) -> None:
        self._step_s = step_s
        self._reason = reason

    async def start(self, on_orphans: OnOrphans) -> None:
        """Needs nothing."""

    async def close(self) -> None:
        """Has nothing."""

    def tiers(self) -> Sequence[TierDescription]:
        return [TierDescription("fast", "steady")]

    def snapshot(self) -> Sequence[TierSnapshot]:
        return [TierSnapshot("fast", frozenset({"steady"}), CONTEXT)]

    def model_version(self, tier: str, replica_id: str) -> str:
        return ""

    async def generate(
        self,
        tier: str,
        request: GenerationRequest,
        avoid: Collection[str] = (),
        on_usage: OnUsage | None = None,
        account: str = "",
        on_placed: OnPlaced | None = None,
    ) -> AsyncGenerator[Sequence[Delta], None]:
        prompt, limit, sent = prompt_tokens(request), request.sampling.max_tokens or 16, 0
        try:
            while sent < limit:
                await asyncio.sleep(self._step_s)
                sent += 1
                last = sent == limit
                usage = Usage(prompt, sent, 0) if last else None
                yield [Delta(request.request_id, (7,), " tok", self._reason if last else None, usage)]
        finally:
            if sent < limit and on_usage is not None:
                on_usage(Usage(prompt, sent, 0))
