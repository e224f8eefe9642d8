"""``strike``: brings a fault upon a graph."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from load_tests.chaos.faults import Fault, NoEffectError
from load_tests.local_graph import TIER

if TYPE_CHECKING:
    from load_tests.chaos.graph import Graph

GCS_DOWN_S = 3.0
"""Seconds until a GCS is started again."""
CHANGE_S = 120.0
"""Seconds that Serve may take to replace replicas."""

LOOK_S = 0.01
"""Between two looks at whether the work of a killed router has ended."""

Undo = Callable[[], float | None]
"""Undoes a fault. Returns the seconds from the death of a router until no replica did its work any more; None: the
fault was another one."""


def strike(fault: Fault, graph: Graph, replicas: Sequence[int], turn: int) -> Undo:
    """Injects the fault into the graph, whose replicas are the processes ``replicas``: into another one in each turn.

    Returns when the fault has come and, if it takes its time, is over. The result is called at the end of the
    repetition and undoes the fault. Raises NoEffectError, and what Ray raises.
    """
    victim = replicas[turn % len(replicas)]
    match fault:
        case Fault.KILL_REPLICA:
            os.kill(victim, signal.SIGKILL)
        case Fault.KILL_ENGINE:
            graph.kill_engine(victim)
            return lambda: graph.spare_engine(victim)
        case Fault.STOP_REPLICA:
            os.kill(victim, signal.SIGSTOP)
            return lambda: _go_on(victim)
        case Fault.KILL_ROUTER:
            os.kill(graph.router_pids()[0], signal.SIGKILL)
            pool = ThreadPoolExecutor(1)  # while the fault lasts requests are sent again, so it must not last for this
            measured = pool.submit(_idle_after_s, graph)
            pool.shutdown(wait=False)
            return measured.result
        case Fault.KILL_NODE:
            graph.kill_node(victim)
            return graph.add_node
        case Fault.KILL_GCS:
            graph.restart_gcs(GCS_DOWN_S)
            _wait(graph.running, "Serve did not find the new GCS")
        case Fault.KILL_CONTROLLER:
            _kill_controller(graph)
        case Fault.RELOAD_HAPROXY:
            graph.reload_haproxy()
        case Fault.DRAIN_REPLICA:
            graph.change(TIER, num_replicas=len(replicas) - 1)
            _wait(lambda: graph.running() and 0 < len(graph.replica_pids()) < len(replicas), "no replica was stopped")
            return lambda: graph.change(TIER, num_replicas=len(replicas))
        case Fault.UPDATE_TIER:
            # Another reservation of CPU makes Serve replace the replicas; this one is too small to matter.
            graph.change(TIER, ray_actor_options={"num_cpus": 0.001 * (turn + 1)})
            _wait(lambda: graph.running() and _replaced(replicas, graph.replica_pids()), "some replicas stayed")
        case Fault.UPDATE_ROUTER:
            before = graph.router_pids()
            graph.change("Router", ray_actor_options={"num_cpus": 0.001 * (turn + 1)})
            _wait(lambda: graph.running() and _replaced(before, graph.router_pids()), "some routers stayed")
    return lambda: None


def _kill_controller(graph: Graph) -> None:
    """Kills Serve's controller, and waits until Ray has started another one that answers."""
    before = graph.controller_pid()
    os.kill(before, signal.SIGKILL)
    _wait(lambda: graph.running() and graph.controller_pid() != before, "no controller came back")


def _replaced(before: Sequence[int], now: Sequence[int]) -> bool:
    """Returns whether there are as many processes as before, and all others."""
    return len(now) == len(before) and not set(before) & set(now)


def _idle_after_s(graph: Graph) -> float:
    """Returns the seconds from now until the replicas have no work. Raises NoEffectError after CHANGE_S."""
    began = time.monotonic()
    _wait(lambda: graph.unfinished() == 0, "the replicas still did the work of the router", LOOK_S)
    return time.monotonic() - began


def _wait(condition: Callable[[], bool], otherwise: str, pause_s: float = 0.25) -> None:
    """Returns when the condition is true, which is looked at every ``pause_s`` seconds. Raises NoEffectError after
    CHANGE_S."""
    deadline = time.monotonic() + CHANGE_S
    while not condition():
        if time.monotonic() > deadline:
            raise NoEffectError(f"{otherwise} within {CHANGE_S:g} s")
        time.sleep(pause_s)


def _go_on(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGCONT)
    except ProcessLookupError:
        return  # it was replaced, and ended, meanwhile
