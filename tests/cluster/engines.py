"""Hand-written engines and clients for the cluster's own ports."""

from __future__ import annotations

import pickle
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from typing import Any

from cluster.config import TierConfig
from cluster.lanes.dataclass_codec import Record
from cluster.lanes.lane_messages import LaneItem
from cluster.replica.tier_replica import OnStep, TierReplica
from engine.api import (
    Delta,
    EngineDeadError,
    EngineLoad,
    EngineStats,
    FinishReason,
    GenerationRequest,
    Grammar,
    ModelInfo,
    OverloadedError,
    Priority,
    StepFacts,
    TtftObjective,
    Usage,
)
from engine.config import EngineConfig
from engine.metrics import EngineMetrics, Recorder
from router.ports.tier_backend import ReplicaLostError


class SteppedEngine:
    """An engine that steps only when told to: each step gives every request one token, its own number."""

    def __init__(self, on_step: OnStep, *, capacity: int = 100) -> None:
        self.on_step = on_step
        self.capacity = capacity
        self.live: dict[str, tuple[GenerationRequest, int]] = {}
        self.aborted: list[str] = []
        self.counted: dict[str, Usage] = {}  # the final counts of each request that was accepted
        self.closed = False
        self.dead = False
        self.grammars: set[Grammar] = set()
        self.objectives: dict[Priority, TtftObjective] = {}
        self.steps = 0
        self.waiting = 0
        self.wait_s = 0.0
        self.step_s = 0.0
        self.context_length = 128

    def start(self) -> None: ...

    def close(self) -> None:
        self.closed = True

    def submit(self, request: GenerationRequest) -> None:
        self.check_alive()
        if len(self.live) >= self.capacity:
            raise OverloadedError("full", 2.0)
        self.live[request.request_id] = (request, 0)

    def knows_grammar(self, grammar: Grammar) -> bool:
        return grammar in self.grammars

    def expect(self, objectives: Mapping[Priority, TtftObjective]) -> None:
        self.objectives = dict(objectives)

    def abort(self, request_ids: Iterable[str]) -> None:
        for request_id in request_ids:
            if (found := self.live.pop(request_id, None)) is not None:
                self.aborted.append(request_id)
                usage = self.counted[request_id] = Usage(1, found[1], 0)
                self.on_step([Delta(request_id, (), "", FinishReason.ABORT, usage)])

    def step(self) -> None:
        self.steps += 1
        deltas = []
        for request_id, (request, count) in list(self.live.items()):
            done = count + 1 == request.sampling.max_tokens
            usage = Usage(1, count + 1, 0) if done else None
            deltas.append(
                Delta(request_id, (count,), f"{count} ", FinishReason.LENGTH if done else None, usage),
            )
            self.live[request_id] = (request, count + 1)
            if done and usage is not None:
                self.counted[request_id] = usage
                del self.live[request_id]
        self.on_step(deltas)

    def stats(self) -> EngineStats:
        live, aborted = len(self.live), len(self.aborted)
        return EngineStats(live, self.waiting, 100, live, 0, self.steps, 0, 0, 0, 0, aborted, 0, wait_s=self.wait_s)

    def load(self) -> EngineLoad:
        return EngineLoad(running=len(self.live), waiting=self.waiting, step_s=self.step_s)

    @property
    def last_step(self) -> StepFacts:
        return StepFacts(self.steps, len(self.live))

    def metrics(self) -> EngineMetrics:
        return Recorder().snapshot(self.stats(), {})

    def die(self) -> None:
        """Ends the engine as an exception in its thread does: all requests fail, and new ones are refused."""
        self.dead = True
        left, self.live = list(self.live), {}
        self.on_step([Delta(each, (), "", FinishReason.ERROR, None, "The engine has died.") for each in left])

    def check_alive(self) -> None:
        if self.dead:
            raise EngineDeadError("The engine has died.")

    def check_health(self) -> None:
        self.check_alive()

    @property
    def model_info(self) -> ModelInfo:
        return ModelInfo("stepped", self.context_length, 256)


class LocalReplica:
    """A TierReplica in this process with its SteppedEngine at hand."""

    def __init__(self, *, capacity: int = 100) -> None:
        self.engine: SteppedEngine

        def make(_: TierConfig, on_step: OnStep) -> SteppedEngine:
            self.engine = SteppedEngine(on_step, capacity=capacity)
            return self.engine

        self.actor = TierReplica(TierConfig(name="fast", engine=EngineConfig(model="none")), make)
        self.dead = False


BUILTINS = (str, int, float, bool, bytes, type(None))


def sent(value: Any) -> Any:
    """``value`` as it arrives in another process, of which nothing but Python itself need be the same."""
    assert_builtins(value)
    return pickle.loads(pickle.dumps(value))


def assert_builtins(value: Any) -> None:
    """Fails for an instance of a class that is not Python's own, however deep."""
    if type(value) in (tuple, list):
        for each in value:
            assert_builtins(each)
    elif type(value) is dict:
        assert_builtins([*value.items()])
    else:
        assert type(value) in BUILTINS, type(value)


class LocalClient:
    """ReplicaClient without Serve: straight calls to replicas in this process, by way of pickled builtins."""

    def __init__(self, replicas: dict[str, LocalReplica]) -> None:
        self.replicas = replicas
        self.lanes_opened = 0
        self.aborts: list[list[str]] = []
        self.connected = 0

    async def connect(self) -> None:
        self.connected += 1

    def _reach(self, replica_id: str) -> TierReplica:
        replica = self.replicas.get(replica_id)
        if replica is None or replica.dead:
            raise ReplicaLostError(f"{replica_id} is gone", replica_id)
        return replica.actor

    async def lane(self, replica_id: str, lane_id: str) -> AsyncGenerator[LaneItem, None]:
        self.lanes_opened += 1
        items = self._reach(replica_id).lane(lane_id, replica_id=replica_id)
        try:
            async for item in items:
                self._reach(replica_id)
                yield sent(item)
        except EngineDeadError as error:  # Ray raises it as an error of its own
            raise ReplicaLostError(str(error), replica_id) from error
        finally:
            await items.aclose()

    async def submit(
        self, replica_id: str, lane_id: str, request: Record, *, validated_at_once: bool = False
    ) -> Record | None:
        refusal: Record | None = sent(
            await self._reach(replica_id).submit(lane_id, sent(request), replica_id=replica_id)
        )
        return refusal

    async def abort(self, replica_id: str, lane_id: str, request_ids: Sequence[str]) -> None:
        self.aborts.append(list(request_ids))
        await self._reach(replica_id).abort(lane_id, request_ids, replica_id=replica_id)
