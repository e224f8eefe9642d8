"""``paused_collector``: Python's garbage collector stands still while a simulation runs.

A run makes hundreds of thousands of objects that stay until its end, and few cycles. Each full collection would walk
them all to free nothing.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused_collector() -> Iterator[None]:
    """Stops the collection of cycles for the time of the block. Afterwards the collector is as before, also after an
    error."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
