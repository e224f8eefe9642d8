"""``ServeEngineCounts``: implements the router's port ``EngineCountsSource``. Each read calls every replica."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextvars import Context
from dataclasses import fields
from typing import Any

from ray.serve.handle import DeploymentHandle

from cluster.model_service.deployment import SERVE_FAULTS, pickling
from router.ports.engine_counts import EngineCounts

ANSWER_S = 2.0
"""Seconds that the replicas of a tier may take. One that hangs must not make the overview hang."""
KNOWN = frozenset(each.name for each in fields(EngineCounts))


class ServeEngineCounts:
    """Reads the counts of the replicas behind ``handles``, the handles of the tiers' deployments by tier name.
    Implements ``EngineCountsSource``."""

    def __init__(self, handles: Mapping[str, DeploymentHandle[Any]]) -> None:
        self._handles = {name: pickling(handle) for name, handle in handles.items()}

    async def read(self) -> Mapping[str, Sequence[EngineCounts]]:
        found = await asyncio.gather(*(_ask(handle) for handle in self._handles.values()))
        named = zip(self._handles, found, strict=True)
        return {name: [counts_of(each) for each in answers] for name, answers in named if answers is not None}


async def _ask(handle: DeploymentHandle[Any]) -> Sequence[Mapping[str, Any]] | None:
    """Returns what all replicas of a tier answer; None if one of them does not."""
    try:
        # Outside of the context of the request, as in `model_service.deployment.asked`.
        response = Context().run(handle.broadcast, "counts")
        answers: Sequence[Mapping[str, Any]] = await asyncio.wait_for(response.results_async(), ANSWER_S)
    except (TimeoutError, *SERVE_FAULTS):
        return None
    return answers


def counts_of(answer: Mapping[str, Any]) -> EngineCounts:
    """Returns the counts in a replica's answer. The replica may be of another release: fields that this release does
    not know are left out."""
    return EngineCounts(**{name: value for name, value in answer.items() if name in KNOWN})
