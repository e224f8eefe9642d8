"""A stub engine that fails in every way in which a prompt could get into a log."""

from __future__ import annotations

import asyncio
import logging
import threading
from dataclasses import dataclass

from cluster.config import TierConfig
from cluster.replica.tier_replica import ReplicaEngine
from engine.api import Conversation, GenerationRequest
from engine.log_failure import log_failure
from load_tests.overhead.stub import OnStep, StubEngine

logger = logging.getLogger("engine.failing")


class FailingEngine(StubEngine):
    """Refuses each prompt with "fail" in it by an error that quotes the prompt, as do a task and a thread."""

    def submit(self, request: GenerationRequest) -> None:
        prompt = request.prompt
        text = prompt.messages[-1].content if isinstance(prompt, Conversation) else str(prompt)
        if "fail" not in text:
            super().submit(request)
            return
        logger.info("a prompt of %d characters", len(text))
        log_failure("a request", ValueError(text), request.request_id)
        asyncio.get_running_loop().create_task(_raise(text))
        threading.Thread(target=asyncio.run, args=(_raise(text),), name="failing").start()
        logging.getLogger("some.library").warning("cannot parse", exc_info=ValueError(text))
        raise ValueError(text)


async def _raise(text: str) -> None:
    raise ValueError(text)


@dataclass(frozen=True, slots=True)
class FailingFactory:
    """An engine factory for ``cluster.app.build_with``."""

    def __call__(self, tier: TierConfig, on_step: OnStep) -> ReplicaEngine:
        return FailingEngine(on_step)
