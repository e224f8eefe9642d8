"""``SpeculativeAnswers``: answers that the engine begins to generate while the request is still being checked.

The name is that of NeMo Guardrails' option, ``speculative_generation``. Nothing of these answers is sent before the
checks have ended. If they refuse or change the request, the answers are aborted, and their tokens are not billed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from enum import StrEnum
from functools import partial
from types import TracebackType
from typing import NamedTuple

from router.aborted_prompts import AbortedPrompts
from router.answer_events import AnswerEvent
from router.errors import RefusalError
from router.generation.wasted_share import WastedShares
from router.inference_request import InferenceRequest
from router.ledger.ledger import Account
from router.usage_meter import UsageMeter

MAX_AHEAD_S = 2.0
"""Seconds that the engine works ahead of the checks. After that its work is thrown away: a check that takes longer may
wait for a person. What the engine has computed of the prompt mostly stays in its prefix cache. Meanwhile the lane holds
the tokens that come, up to ``placement.reader_buffer_tokens`` of each choice."""

Batches = AsyncGenerator[Sequence[AnswerEvent], None]
Start = Callable[[InferenceRequest, UsageMeter, AbortedPrompts], Batches]
"""Returns the answers to a request, whose tokens a meter counts."""

logger = logging.getLogger(__name__)


class Speculation(StrEnum):
    """What became of answers that were begun."""

    KEPT = "kept"
    REFUSED = "refused"
    CHANGED = "changed"
    """The checks have changed the request, for example redacted it, so that its answers were begun anew."""
    LATE = "late"
    """The checks took longer than MAX_AHEAD_S."""
    LEFT = "left"
    """The client left during the checks, or the request ended there for another reason."""


class Generated(NamedTuple):
    """Answers of the engine, and what aborts them for single prompts. The events raise what ``generate`` raises."""

    events: Batches
    aborts: AbortedPrompts


class SpeculativeAnswers:
    """The answers to one request that are begun ahead of its checks, if any are. An asynchronous context manager, which
    aborts them at its end.

    ``may_begin`` returns whether the request need not wait for its checks. ``start`` starts the engine's work.
    ``tokens`` returns the estimate of the request's prompt tokens, by which ``shares`` says for whom the work pays.
    ``count`` takes what became of answers that were begun. ``on_abort`` is called when they are aborted and the request
    goes on.
    """

    def __init__(
        self,
        account: Account,
        may_begin: Callable[[], bool],
        start: Start,
        tokens: Callable[[InferenceRequest], int],
        shares: WastedShares,
        count: Callable[[Speculation], None],
        on_abort: Callable[[], None],
    ) -> None:
        self._account = account
        self._may_begin = may_begin
        self._start = start
        self._tokens = tokens
        self._shares = shares
        self._count = count
        self._on_abort = on_abort
        self._request: InferenceRequest | None = None
        self._work: _Work | None = None
        self._judged = False

    async def __aenter__(self) -> SpeculativeAnswers:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._request is not None and not self._judged:
            refused = isinstance(error, RefusalError)
            self._note(self._request, Speculation.REFUSED if refused else Speculation.LEFT)
        if self._work is not None:
            await self._work.abort()

    def begin(self, request: InferenceRequest) -> None:
        """Begins the answers to ``request``, which is the request as the engine gets it unless the checks change it.
        Called once at most."""
        if not self._may_begin():
            return
        self._request = request
        if self._shares.pays(self._key):
            meter, aborts = UsageMeter(), AbortedPrompts()
            self._work = _Work(partial(self._start, request, meter, aborts), meter, aborts)

    async def judge(self) -> Generated | None:
        """Returns the answers that were begun, whose tokens the account counts from now on; None: none were, or the
        checks have refused or changed the request, so that they were aborted. Called when the checks have ended."""
        account, work = self._account, self._work
        if self._request is None:
            return None
        if account.ruling is not None and account.ruling.refused:
            found = Speculation.REFUSED
        elif account.request != self._request:
            found = Speculation.CHANGED
        else:
            found = Speculation.KEPT if work is None or work.keep() else Speculation.LATE
        self._note(self._request, found)
        if work is None:
            return None
        if found is Speculation.KEPT:
            account.meter = work.meter
            return Generated(work.answers(), work.aborts)
        await work.abort()
        account.restarted = work.started
        self._on_abort()
        return None

    def _note(self, request: InferenceRequest, found: Speculation) -> None:
        """Notes what became, or would have become, of answers to ``request`` begun ahead of the checks."""
        self._judged = True
        self._shares.observe(self._key, self._tokens(request), wasted=found is not Speculation.KEPT)
        if self._work is not None and self._work.started:
            self._count(found)

    @property
    def _key(self) -> tuple[str, str]:
        principal = self._account.principal
        return principal.tenant, principal.key_id


class _Work:
    """The engine's work on answers until the verdict: it waits for their first batch. It is aborted after MAX_AHEAD_S,
    unless it is kept. ``start`` is called in the next round of the event loop, so that what is refused without any wait
    starts nothing."""

    def __init__(self, start: Callable[[], Batches], meter: UsageMeter, aborts: AbortedPrompts) -> None:
        self.meter = meter
        self.aborts = aborts
        self._start = start
        self._events: Batches | None = None
        self._first = asyncio.create_task(self._first_batch())
        self._timer = asyncio.get_running_loop().call_later(MAX_AHEAD_S, self._expire)
        self._aborting: asyncio.Task[None] | None = None

    @property
    def started(self) -> bool:
        """Whether the engine was asked."""
        return self._events is not None

    def keep(self) -> bool:
        """Ends the time limit. Returns whether it was not over yet."""
        self._timer.cancel()
        return self._aborting is None

    async def answers(self) -> Batches:
        """Yields the answers, those that have come already first."""
        if (first := await self._first) is None or self._events is None:
            return
        async with aclosing(self._events) as events:
            yield first
            async for each in events:
                yield each

    async def abort(self) -> None:
        """Aborts the work. Has no effect on answers that have ended. Its errors are logged at most: no
        request waits for these answers."""
        self._timer.cancel()
        await (self._abort() if self._aborting is None else self._aborting)

    def _expire(self) -> None:
        self._aborting = asyncio.create_task(self._abort())

    async def _abort(self) -> None:
        if not self._first.done():
            self._first.cancel()
            await asyncio.wait([self._first])
        if not self._first.cancelled():
            self._first.exception()  # retrieved, so that asyncio does not log it
        if self._events is None:
            return
        try:
            await self._events.aclose()
        except Exception as fault:  # noqa: BLE001 no request waits for these answers
            logger.error("the end of answers that are not wanted failed: %s", type(fault).__name__)

    async def _first_batch(self) -> Sequence[AnswerEvent] | None:
        """Starts the work. Returns the first batch; None: there is none."""
        self._events = self._start()
        return await anext(self._events, None)
