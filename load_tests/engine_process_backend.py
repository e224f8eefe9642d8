"""``EngineProcessBackend``: a tier over a real engine in a process of its own, as a replica is.

An engine on a thread of the router's process would share Python's lock with it, and the router would wait for that
before and after each read and write.
"""

from __future__ import annotations

import asyncio
import queue
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

from engine.api import Delta, EngineError, GenerationRequest, ModelInfo
from load_tests.simulation.profile import ReplicaProfile
from router.ports.replica_load import ReplicaLoad
from router.ports.tier_backend import (
    OnOrphans,
    OnPlaced,
    OnUsage,
    ReplicaLostError,
    TierDescription,
    TierSnapshot,
)

ROOT = Path(__file__).resolve().parents[1]
TIER, REPLICA = "fast", "engine"
CLOSE_S = 10.0
"""Seconds that the process has to end."""

Report = tuple[Sequence[Delta], ReplicaLoad]
"""The deltas of a step, and the load after it."""


def run_engine(pipe: Connection, model: str, profile: ReplicaProfile | None, settings: Mapping[str, Any]) -> None:
    """Runs the engine of ``model`` in this process, with the ``settings`` of ``Engine.from_pretrained``, until None
    comes from ``pipe`` or it is closed: takes requests and ids to abort from it, and sends reports. With a ``profile``
    its forward passes are stretched to those of that replica."""
    # Imported in this process alone: the other one needs no torch.
    from engine import AsyncEngine, Engine
    from engine.warm_up import warm_up
    from load_tests.prediction.stretched_engine import PassTimes, stretched_to

    sending = threading.Lock()

    def send(deltas: Sequence[Delta]) -> None:
        with sending:
            pipe.send((deltas, ReplicaLoad.of(engine.stats(), engine.load())))

    kind = Engine if profile is None else stretched_to(PassTimes.of(profile))
    loaded = kind.from_pretrained(model, **settings)
    warm_up(loaded)
    engine = AsyncEngine(loaded, send)
    engine.start()
    pipe.send((engine.model_info, ReplicaLoad.of(engine.stats(), engine.load())))
    try:
        while True:
            match pipe.recv():
                case GenerationRequest() as request:
                    try:
                        engine.submit(request)
                    except EngineError as error:
                        with sending:
                            pipe.send((request.request_id, error))
                case str() as request_id:
                    engine.abort([request_id])
                case _:
                    return
    except EOFError:
        return  # the router's process has ended
    finally:
        engine.close()


class EngineProcessBackend:
    """Implements ``TierBackend`` with one tier, TIER, of one replica: an engine that runs ``model`` in a process of its
    own, which ends with ``close``. ``settings`` are those of ``Engine.from_pretrained``. With a ``profile`` its forward
    passes take as long as those of that replica. ``close`` raises subprocess.TimeoutExpired if the process does not
    end.

    The counts of a request that is given up are not known: ``on_usage`` gets None.
    """

    def __init__(self, model: str, profile: ReplicaProfile | None = None, **settings: Any) -> None:
        self._answers: dict[str, asyncio.Queue[Sequence[Delta] | Exception]] = {}
        self._outbox: queue.SimpleQueue[GenerationRequest | str | None] = queue.SimpleQueue()
        self._pipe, other = Pipe()
        # A process of ``multiprocessing`` would leave its resource tracker behind.
        command = [sys.executable, "-m", "load_tests.engine_process_backend", str(other.fileno())]
        self._process = subprocess.Popen(command, pass_fds=[other.fileno()], cwd=ROOT)
        other.close()
        self._pipe.send((model, profile, settings))
        self._model: ModelInfo
        self._load: ReplicaLoad
        self._model, self._load = self._pipe.recv()  # raises EOFError if the engine does not start

    async def start(self, on_orphans: OnOrphans) -> None:
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._receive, args=(loop,), daemon=True).start()
        threading.Thread(target=self._send, daemon=True).start()

    async def close(self) -> None:
        self._outbox.put(None)
        await asyncio.to_thread(self._process.wait, CLOSE_S)

    @property
    def alive(self) -> bool:
        """Whether the engine's process runs."""
        return self._process.poll() is None

    def tiers(self) -> Sequence[TierDescription]:
        return [TierDescription(TIER, "engine")]

    def snapshot(self) -> Sequence[TierSnapshot]:
        load = self._load
        return [
            TierSnapshot(
                TIER,
                frozenset({REPLICA}),
                self._model.context_length,
                running=load.running,
                waiting=load.waiting,
                wait_s=load.wait_s,
                loads={REPLICA: load},
            )
        ]

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
        answers: asyncio.Queue[Sequence[Delta] | Exception] = asyncio.Queue()
        self._answers[request.request_id] = answers
        ended = False
        try:
            self._outbox.put(request)
            while not ended:
                answer = await answers.get()
                if isinstance(answer, Exception):
                    ended = True
                    raise answer
                ended = answer[-1].last
                yield answer
        finally:
            del self._answers[request.request_id]
            if not ended:
                self._outbox.put(request.request_id)
                if on_usage is not None:
                    on_usage(None)

    def _send(self) -> None:
        """Sends what is in the outbox, on a thread of its own: a full pipe must not stop the event loop."""
        while (item := self._outbox.get()) is not None:
            self._pipe.send(item)
        self._pipe.send(None)

    def _receive(self, loop: asyncio.AbstractEventLoop) -> None:
        """Takes what the engine sends, on a thread of its own, until its process has ended."""
        try:
            while True:
                loop.call_soon_threadsafe(self._take, self._pipe.recv())
        except (EOFError, OSError):
            lost = ReplicaLostError("The engine has ended.", REPLICA)
            for request_id in list(self._answers):
                loop.call_soon_threadsafe(self._take, (request_id, lost))

    def _take(self, sent: Report | tuple[str, Exception]) -> None:
        match sent:
            case str() as request_id, Exception() as error:
                if (found := self._answers.get(request_id)) is not None:
                    found.put_nowait(error)
            case deltas, ReplicaLoad() as load:
                self._load = load
                by_request: dict[str, list[Delta]] = {}
                for delta in deltas:
                    assert isinstance(delta, Delta)
                    by_request.setdefault(delta.request_id, []).append(delta)
                for request_id, own in by_request.items():
                    if (found := self._answers.get(request_id)) is not None:
                        found.put_nowait(own)


if __name__ == "__main__":
    inherited = Connection(int(sys.argv[1]))
    its_model, its_profile, its_settings = inherited.recv()
    run_engine(inherited, its_model, its_profile, its_settings)
