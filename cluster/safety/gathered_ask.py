"""``GatheredAsk``: sends the texts of several callers to the classifier's deployment in one call. ``Gathering`` decides
which and when.

Deadlines and the circuit breaker are those of each caller, as without it: they stand before, in ``ClassifierClient``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from functools import partial

from cluster.safety.classifier_client import Ask
from cluster.safety.gathering import GatheredCall, Gathering
from safety.api import ClassifierUnavailableError

logger = logging.getLogger(__name__)

Texts = tuple[Sequence[str], str]
"""The texts of a caller, and their tenant."""

AskEach = Callable[[Sequence[Texts]], Awaitable[object]]
"""Asks a replica for the replies to the texts of several callers: a list with a ``ClassifierReply`` for each. Raises
ClassifierUnavailableError if it cannot answer."""


class _Caller:
    """A caller's texts, and the reply to them."""

    def __init__(self, texts: Sequence[str], tenant: str) -> None:
        self.texts: Texts = (texts, tenant)
        self.reply: asyncio.Future[object] = asyncio.get_running_loop().create_future()


class GatheredAsk:
    """Sends texts by ``ask``, or by ``ask_each`` where several callers' go together. Implements ``Ask``. All calls are
    on one event loop.

    A caller that leaves takes its texts along if they still wait; a call is given up with the last of its callers. What
    is wrong with the texts of one is in its reply alone. Where a call of several fails, each is asked for by itself:
    the replica may have been lost by one of them, or may be of a version that knows no such calls.
    """

    def __init__(self, ask: Ask, ask_each: AskEach) -> None:
        self._ask = ask
        self._ask_each = ask_each
        self._gathering: Gathering[_Caller] = Gathering()
        self._timer: asyncio.TimerHandle | None = None

    async def __call__(self, texts: Sequence[str], tenant: str) -> object:
        caller = _Caller(texts, tenant)
        self._gathering.add(caller, sum(map(len, texts)))
        self._send()
        try:
            return await caller.reply
        finally:
            self._gathering.drop(caller)

    def _send(self) -> None:
        """Sends what is due, and sets the timer for the rest."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for call in self._gathering.take(now):
            # Outside the context of the request that happens to be the first: the call is that of several.
            task = loop.create_task(self._answer(call), context=Context())
            for caller in call.items:
                caller.reply.add_done_callback(partial(_give_up, call, task))
        due_at = self._gathering.due_at(now)
        if due_at is not None and self._timer is None:
            self._timer = loop.call_at(due_at, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._send()

    async def _answer(self, call: GatheredCall[_Caller]) -> None:
        """Asks, and passes the replies on to the callers that are still there."""
        try:
            replies = await self._replies([caller.texts for caller in call.items])
            for caller, reply in zip(call.items, replies, strict=True):
                _give(caller, reply)
        finally:
            self._gathering.ended(call)
            self._send()

    async def _replies(self, texts: Sequence[Texts]) -> Sequence[object]:
        """Returns a reply for each caller: what it raises, if it is lost, and None for each if the replica's answer is
        no list of as many."""
        if len(texts) > 1:
            try:
                replies = await self._ask_each(texts)
            except Exception as error:  # noqa: BLE001 whatever it is, each caller gets the reply or error of a call of its own
                name = type(error.__cause__ or error).__name__
                logger.warning("a call for %d callers failed (%s), each is asked for by itself", len(texts), name)
            else:
                return replies if isinstance(replies, list) and len(replies) == len(texts) else [None] * len(texts)
        return await asyncio.gather(*(self._ask(*each) for each in texts), return_exceptions=True)


def _give_up(call: GatheredCall[_Caller], task: asyncio.Task[None], _: asyncio.Future[object]) -> None:
    """Cancels a call all of whose callers have left."""
    if all(caller.reply.cancelled() for caller in call.items):
        task.cancel()


def _give(caller: _Caller, reply: object) -> None:
    """Gives a caller its reply, or raises it there, unless the caller has left."""
    if caller.reply.done():
        return
    if isinstance(reply, asyncio.CancelledError):  # not by the caller, which is still there
        caller.reply.set_exception(ClassifierUnavailableError("the call of the classifier was cancelled"))
    elif isinstance(reply, BaseException):
        caller.reply.set_exception(reply)
    else:
        caller.reply.set_result(reply)
