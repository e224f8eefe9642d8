"""``TraceFaults``: counts the traces that a fault of tracing itself has lost.

``ray_manta_trace_faults_total`` has the labels ``role`` (router, replica, classifier, embedder, cache) and
``application``.
"""

from __future__ import annotations

import contextlib
import logging

from cluster.telemetry.instruments import Instruments

logger = logging.getLogger(__name__)


class TraceFaults:
    """The lost traces of an actor in ``role``. May be called on any thread."""

    def __init__(self, made: Instruments, role: str) -> None:
        self._labels = {"role": role}
        self._lost = made.counter("manta_trace_faults", "Traces lost by a fault of tracing itself.", ("role",))
        self._logged = False

    def lost(self, error: Exception) -> None:
        """Counts a trace that ``error`` has lost. The first one is logged, since the same fault may be in each. Does
        not raise: a full disk below a log handler must not end a request either."""
        with contextlib.suppress(Exception):
            self._lost.inc(1, self._labels)
            if not self._logged:
                self._logged = True
                logger.error("a trace is lost by a fault; further ones are counted alone", exc_info=error)
