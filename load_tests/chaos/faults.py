"""The faults that ``python -m load_tests.chaos`` can bring upon a graph."""

from __future__ import annotations

from enum import StrEnum


class Fault(StrEnum):
    """A fault that is injected into a part of the graph while streams are open."""

    KILL_REPLICA = "kill replica"  # SIGKILL
    KILL_ENGINE = "kill engine"  # an exception ends its thread, as a fault of the card does; the process lives on
    KILL_ROUTER = "kill router"
    KILL_NODE = "kill node"  # SIGKILL of all processes of a node that has one replica; another node comes afterwards
    KILL_GCS = "kill gcs"  # SIGKILL, and a new one some seconds later that reads the same Redis
    KILL_CONTROLLER = "kill controller"  # SIGKILL of Serve's controller, which Ray starts again
    STOP_REPLICA = "stop replica"  # SIGSTOP, and SIGCONT when the streams have ended
    DRAIN_REPLICA = "drain replica"  # the tier is scaled down by one replica, and up again afterwards
    UPDATE_TIER = "rolling-update tier"  # Serve replaces each replica by one of a new version
    UPDATE_ROUTER = "rolling-update router"
    RELOAD_HAPROXY = "reload haproxy"  # a new HAProxy takes over the socket; the old one ends its connections


MOVING = frozenset({Fault.KILL_REPLICA, Fault.KILL_ENGINE, Fault.KILL_NODE, Fault.STOP_REPLICA})
"""Faults that move the streams of a replica. The others may let all end where they are, or cut them at the router."""


class NoEffectError(Exception):
    """The fault did not change what it should have changed; the message says what."""
