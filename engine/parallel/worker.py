"""The process of a rank from 1 up: ``python -m engine.parallel.worker``, which only rank 0 starts.

It ends when its connection to rank 0 ends, for whatever reason, even in the middle of a step.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import sys
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import NoReturn

import torch

from engine.backend import StepRunner, load_model, make_runner
from engine.config import EngineConfig
from engine.garbage_collection import freeze_gc
from engine.kv.shape import context_of, shapes_of
from engine.log_failure import log_failure
from engine.model.location import locate
from engine.model.source import open_model
from engine.parallel.collectives import ProcessGroup
from engine.parallel.launch import Invitation
from engine.parallel.wire import Command, Copy, Failed, Listener, Meet, Orders, Ready, Run, Scrub


def serve(invitation: Invitation, gpu: int) -> NoReturn:
    """Carries out the commands of rank 0 until the connection ends, then ends the process. ``gpu`` is the number of the
    GPU to use, among those visible to this process; it has no effect on a CPU."""
    connection = _connect(invitation)
    inbox: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_receive, args=(connection, inbox), name="manta-rank", daemon=True).start()
    try:
        orders: Orders = pickle.loads(inbox.get())
        exchange = _join(orders, invitation.rank, gpu)
        runner = _load(orders.config, exchange)
        freeze_gc()
        connection.send(Ready())
    except Exception as error:  # noqa: BLE001 - told to rank 0, which says so
        _fail(connection, f"{type(error).__name__}: {error}")
    listener = Listener()
    try:
        while True:
            _perform(pickle.loads(inbox.get()), runner, listener, exchange)
    except Exception as error:  # noqa: BLE001 - told to rank 0; its words may quote a prompt
        log_failure("a step of another rank", error)
        _fail(connection, type(error).__name__)


def _connect(invitation: Invitation) -> Connection:
    """Connects to rank 0, and sends it the rank of this worker."""
    door = socket.socket(socket.AF_UNIX)
    door.connect(invitation.address)
    connection = Connection(door.detach())
    connection.send(invitation.rank)
    return connection


def _receive(connection: Connection, inbox: SimpleQueue[bytes]) -> None:
    """On a thread of its own, so that rank 0 never waits for it, and that its end is seen during a step."""
    try:
        while True:
            inbox.put(connection.recv_bytes())
    except (EOFError, OSError):
        os._exit(0)  # not sys.exit: the other thread may wait for a rank that is gone


def _join(orders: Orders, rank: int, gpu: int) -> ProcessGroup:
    device = torch.device(orders.config.device)
    if device.type == "cuda":
        torch.cuda.set_device(gpu)
    return ProcessGroup.join(Path(orders.meeting), rank, orders.config.tensor_parallel, device, orders.limit_s)


def _load(config: EngineConfig, exchange: ProcessGroup) -> StepRunner:
    """This rank's share, and what runs it."""
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    model = load_model(config, open_model(locate(config.model)), exchange)
    shapes = shapes_of(model.spec, config)
    return make_runner(model, config, shapes, context_of(model.spec, config, shapes))


def _perform(command: Command, runner: StepRunner, listener: Listener, exchange: ProcessGroup) -> None:
    match command:
        case Meet():
            exchange.meet()
        case Run(rows):
            runner.run(listener.chunks(rows))
        case Scrub(blocks):
            runner.scrub(blocks)
        case Copy(copies):
            runner.copy(copies)


def _fail(connection: Connection, reason: str) -> NoReturn:
    try:
        connection.send(Failed(reason))
    finally:
        os._exit(1)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C goes to all processes; rank 0 decides
    invitation = Invitation(**json.loads(sys.argv[1]))
    serve(invitation, gpu=invitation.rank)


if __name__ == "__main__":
    main()
