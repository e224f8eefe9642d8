"""``TokenMeter``: a tier backend that counts the tokens of one request, whatever way it ends."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing

from engine.api import Delta, GenerationRequest, Usage
from router.ports.tier_backend import TierBackend, TierDescription, TierSnapshot


class TokenMeter:
    """Passes calls on to ``backend``. Implements ``TierBackend``.

    ``usage`` has the token counts of all attempts that have ended with the engine's own, and of the tokens that have
    arrived of the others; a prompt that has no counts yet is estimated as its share of ``prompt_tokens``.
    """

    def __init__(self, backend: TierBackend, prompt_tokens: int, prompts: int) -> None:
        self._backend = backend
        self._prompt_tokens = prompt_tokens // prompts
        self._running: dict[str, int] = {}  # tokens that have arrived, by request id
        self._ended = Usage(0, 0, 0)

    @property
    def usage(self) -> Usage:
        """The token counts up to now."""
        ended, running = self._ended, [tokens for tokens in self._running.values() if tokens]
        prompt = ended.prompt_tokens + self._prompt_tokens * len(running)
        return Usage(prompt, ended.completion_tokens + sum(running), ended.cached_tokens)

    async def start(self) -> None:
        await self._backend.start()

    async def close(self) -> None:
        await self._backend.close()

    def tiers(self) -> Sequence[TierDescription]:
        return self._backend.tiers()

    def snapshot(self) -> Sequence[TierSnapshot]:
        return self._backend.snapshot()

    async def generate(
        self, tier: str, request: GenerationRequest, avoid: Collection[str] = ()
    ) -> AsyncGenerator[Sequence[Delta], None]:
        running, key = self._running, request.request_id
        running[key] = 0
        async with aclosing(self._backend.generate(tier, request, avoid)) as batches:
            async for deltas in batches:
                running[key] += sum(len(delta.token_ids) for delta in deltas)
                if (usage := deltas[-1].usage) is not None:
                    del running[key]
                    self._add(usage)
                yield deltas

    def _add(self, usage: Usage) -> None:
        ended = self._ended
        self._ended = Usage(
            ended.prompt_tokens + usage.prompt_tokens,
            ended.completion_tokens + usage.completion_tokens,
            ended.cached_tokens + usage.cached_tokens,
        )
