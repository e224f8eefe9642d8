"""``DependencyGauges``: what a router depends on, as gauges in Ray's metrics, which Prometheus reads from every node.

======================================  ======================================  ======================================
gauge                                   labels                                  unit
======================================  ======================================  ======================================
ray_manta_breaker_open                  dependency                              1 while the circuit breaker refuses
                                                                                calls, otherwise 0
ray_manta_journal_bytes                 log: ledger, audit                      bytes that wait on the router's disk
======================================  ======================================  ======================================

``dependency`` is ``classifier``, ``embedder``, ``semantic index``, or the kind of calls to the shared state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from cluster.state.circuit_breaker import BreakerState
from cluster.telemetry.instruments import Instruments, RayInstruments
from router.ports.audit_store import AuditStore
from router.ports.state_store import StateStore


class Guarded(Protocol):
    """A client that calls behind a circuit breaker."""

    @property
    def state(self) -> BreakerState: ...


@dataclass(frozen=True, slots=True)
class Dependencies:
    """The stores and services that a router calls. ``services`` are the clients of deployments, by the value of the
    label."""

    state: StateStore | None
    audit: AuditStore
    services: Mapping[str, Guarded]


class DependencyGauges:
    """The gauges of the circuit breakers and journals of the router in this process. ``instruments`` None: Ray's."""

    def __init__(self, dependencies: Dependencies, instruments: Instruments | None = None) -> None:
        make = instruments or RayInstruments()
        self._dependencies = dependencies
        self._open = make.gauge("manta_breaker_open", "Whether the circuit breaker refuses calls.", ("dependency",))
        self._journal = make.gauge("manta_journal_bytes", "Bytes that wait on the router's disk.", ("log",))

    def publish(self) -> None:
        """Sets the gauges to the current values."""
        dependencies = self._dependencies
        breakers = {name: service.state.value for name, service in dependencies.services.items()}
        if dependencies.state is not None:
            health = dependencies.state.health()
            breakers |= health.breakers
            self._journal.set(health.journal_bytes, {"log": "ledger"})
        self._journal.set(dependencies.audit.health().journal_bytes, {"log": "audit"})
        for name, state in breakers.items():
            self._open.set(float(state != BreakerState.CLOSED.value), {"dependency": name})
