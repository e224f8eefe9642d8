"""A hand-written TierBackend: answers are scripted per prompt, and every generation is on record."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Sequence
from dataclasses import dataclass, field

from engine.api import (
    Conversation,
    Delta,
    FinishReason,
    GenerationRequest,
    Logprob,
    SamplingParams,
    TokenLogprobs,
    Usage,
)
from router.ports.tier_backend import OnOrphans, OnPlaced, OnUsage, TierDescription, TierSnapshot

WORDS = ("Hello", ", ", "wörld", "! ", "🎉")


TIERS = ("fast", "balanced", "frontier")


class ReadyTiers:
    """The part of a TierBackend that describes its tiers: each has one replica, named after the tier."""

    names: Sequence[str] = TIERS
    ready: bool = True
    scales_to_zero: bool = False
    started: int = 0
    stopped: int = 0

    async def start(self, on_orphans: OnOrphans) -> None:
        self.on_orphans = on_orphans
        self.started += 1

    async def close(self) -> None:
        self.stopped += 1

    def tiers(self) -> Sequence[TierDescription]:
        return [TierDescription(name, f"{name}-model") for name in self.names]

    def snapshot(self) -> Sequence[TierSnapshot]:
        return [
            TierSnapshot(name, frozenset({name} if self.ready else ()), 1024, scales_to_zero=self.scales_to_zero)
            for name in self.names
        ]

    def model_version(self, tier: str, replica_id: str) -> str:
        return ""


@dataclass
class ScriptedBackend(ReadyTiers):
    """Streams WORDS, or misbehaves as told.

    ``fault`` is raised before delta number ``fault_at``; ``stall_at`` waits there for ever; ``outcome`` ends it all.
    The counts of an answer that is aborted are reported at once, as an engine's; those of one that fails are lost.
    """

    fault: Exception | None = None
    fault_at: int = 0
    stall_at: int | None = None
    outcome: FinishReason = FinishReason.STOP
    ready: bool = True
    requests: list[GenerationRequest] = field(default_factory=list)
    tiers_used: list[str] = field(default_factory=list)
    accounts: list[str] = field(default_factory=list)
    closed: int = 0

    async def generate(
        self,
        tier: str,
        request: GenerationRequest,
        avoid: Collection[str] = (),
        on_usage: OnUsage | None = None,
        account: str = "",
        on_placed: OnPlaced | None = None,
    ) -> AsyncGenerator[Sequence[Delta], None]:
        self.requests.append(request)
        self.tiers_used.append(tier)
        self.accounts.append(account)
        sent, ended = 0, False
        try:
            words = list(enumerate(self._words(request)))
            for choice in range(1, request.sampling.choices):
                yield self._choice(request, choice, words)
            for i, word in words:
                await asyncio.sleep(0)
                if self.fault is not None and i == self.fault_at:
                    raise self.fault
                if self.stall_at == i:
                    await asyncio.Event().wait()
                scores = scripted_logprobs(i, word, request.sampling)
                of_prompt = scripted_prompt(request) if i == 0 else None
                sent += 1
                yield [Delta(request.request_id, (i,), word, logprobs=scores, prompt_logprobs=of_prompt)]
            if self.fault is not None and self.fault_at >= len(WORDS):
                raise self.fault
            ended = True
            yield [Delta(request.request_id, (), "", self.outcome, Usage(3, len(WORDS), 1))]
        finally:
            self.closed += 1
            if not ended and on_usage is not None:
                on_usage(Usage(3, sent, 1) if self.fault is None else None)

    def _choice(self, request: GenerationRequest, choice: int, words: Sequence[tuple[int, str]]) -> list[Delta]:
        """Another choice, all at once: the same words after its number, the more probable the higher that is."""
        told = [(0, str(choice)), *words]
        deltas = [
            Delta(
                request.request_id,
                (i,),
                word,
                logprobs=scripted_logprobs(-choice, word, request.sampling),
                choice=choice,
            )
            for i, word in told
        ]
        return [*deltas, Delta(request.request_id, (), "", self.outcome, choice=choice)]

    def _words(self, request: GenerationRequest) -> Sequence[str]:
        if isinstance(request.prompt, Conversation):
            return WORDS
        return (f"<{request.prompt}>", *WORDS)


def scripted_prompt(request: GenerationRequest) -> tuple[TokenLogprobs, ...] | None:
    """A prompt of two tokens, "Pro" and "mpt", of which the second is scored."""
    count = request.sampling.prompt_logprobs
    if count is None:
        return None
    others = tuple(Logprob(100 + n, f"other{n}", f"other{n}".encode(), -1.0 - n) for n in range(count))
    first = TokenLogprobs(Logprob(7, "Pro", b"Pro", float("nan")), (), 0)
    return (first, TokenLogprobs(Logprob(8, "mpt", b"mpt", -4.0), others, 9))


def scripted_logprobs(at: int, word: str, sampling: SamplingParams) -> tuple[TokenLogprobs, ...] | None:
    """Those of one word, taken for a token: the less probable the later, beside as many others as were asked for."""
    if not sampling.records_logprobs:
        return None
    chosen = Logprob(at, word, word.encode(), -0.5 * (at + 1))
    others = [Logprob(100 + n, f"other{n}", f"other{n}".encode(), -1.0 - n) for n in range(sampling.logprobs or 0)]
    return (TokenLogprobs(chosen, tuple(others)),)
