"""``UsageMeter``: the token counts of one request over all its attempts, however each of them ends."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from engine.api import Usage

MAX_CLIENT_WAIT_S = 1.0
"""The longest that the end of an answer waits for the engine's counts after an abort. They come within an engine step.
"""


@dataclass(frozen=True, slots=True)
class MeteredUsage:
    """The token counts of a request. ``exact``: all counts are the engine's own. If it is False, the output tokens are
    those that have arrived, and the prompt tokens are estimated."""

    usage: Usage
    reasoning_tokens: int = 0
    exact: bool = True


@dataclass(slots=True)
class AttemptMeter:
    """The token counts of one attempt. ``prompt_tokens`` is the estimate of its prompt. ``shared``: another attempt
    counts the prompt, since both generate choices of the same one. An attempt that continues an answer also counts the
    tokens that were sent before.

    The engine's last delta has the exact counts. If the attempt ends before that delta, ``report`` takes the counts
    that the engine has after the abort.
    """

    prompt_tokens: int
    seen: int = 0  # generated tokens that have arrived, those included that it continues
    shared: bool = False
    usage: Usage | None = None  # the engine's final counts
    _ended: asyncio.Event = field(default_factory=asyncio.Event)

    def report(self, usage: Usage | None) -> None:
        """Takes the engine's final counts; None: they will never be known, since the replica was lost."""
        if not self._ended.is_set():
            self.usage = usage
            self._ended.set()

    def supersede(self) -> None:
        """Makes this attempt count nothing from now on, since another attempt counts the same tokens and the client
        pays for them once."""
        self.usage = Usage(0, 0, 0)
        self._ended.set()

    @property
    def known(self) -> bool:
        """Whether the final counts are known, or known to be lost."""
        return self._ended.is_set()

    async def wait(self) -> None:
        """Waits until ``known`` is True."""
        await self._ended.wait()

    @property
    def counts(self) -> Usage:
        """The engine's token counts, or an estimate while they are unknown. An attempt whose replica sent nothing
        counts nothing."""
        counts = self.usage or Usage(self.prompt_tokens if self.seen else 0, self.seen, 0)
        return Usage(0, counts.completion_tokens, 0) if self.shared else counts


class UsageMeter:
    """The attempts of one request. ``reasoning_tokens`` counts the generated tokens that were reasoning, ``failovers``
    the failovers to another replica. ``other_version``: one of these replicas had another version of the model."""

    def __init__(self) -> None:
        self._attempts: list[AttemptMeter] = []
        self.reasoning_tokens = 0
        self.failovers = 0
        self.other_version = False

    def attempt(self, prompt_tokens: int, seen: int = 0, shared: bool = False) -> AttemptMeter:
        """Adds an attempt and returns its meter. ``prompt_tokens`` estimates its prompt; ``seen`` is the number of
        tokens that were sent before, which the attempt counts too; ``shared`` is as in AttemptMeter."""
        meter = AttemptMeter(prompt_tokens, seen, shared)
        self._attempts.append(meter)
        return meter

    @property
    def known(self) -> bool:
        """Whether the final counts of all attempts are known, or known to be lost."""
        return all(attempt.known for attempt in self._attempts)

    async def wait(self, timeout_s: float) -> None:
        """Waits until ``known`` is True, but at most ``timeout_s`` seconds."""
        waits = [asyncio.ensure_future(attempt.wait()) for attempt in self._attempts if not attempt.known]
        if waits:
            _, pending = await asyncio.wait(waits, timeout=timeout_s)
            for wait in pending:
                wait.cancel()

    @property
    def output_tokens(self) -> int:
        """The generated tokens of all attempts so far."""
        return sum(attempt.counts.completion_tokens for attempt in self._attempts)

    @property
    def total(self) -> MeteredUsage:
        """The sum of the counts of all attempts so far."""
        counts = [attempt.counts for attempt in self._attempts]
        usage = Usage(
            sum(count.prompt_tokens for count in counts),
            sum(count.completion_tokens for count in counts),
            sum(count.cached_tokens for count in counts),
        )
        return MeteredUsage(usage, self.reasoning_tokens, all(attempt.usage is not None for attempt in self._attempts))
