"""``return_free_memory`` gives memory that a process has freed back to the system. ``spare_collector`` keeps Python's
garbage collector from walking what stays."""

from __future__ import annotations

import ctypes
import gc


def return_free_memory() -> None:
    """Returns freed memory to the system, as far as the C library can. It takes up to 0.1 s.

    Called once, after a model was loaded: weights that were read and converted leave 30 to 100 MB that are free and,
    because the C library keeps them for the next allocation, still the process' own. Has no effect without glibc.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


YOUNG_OBJECTS = 100_000
"""New objects after which the youngest are collected; Python's default is 700. A request makes some 230, and leaves
none to the collector. So a burst of 256 streams is 60,000 objects, all of them in use: with a bound of 10,000 walking
them took 6 % of a router's CPU time, up to 50 ms at once."""


def spare_collector() -> None:
    """Excludes all objects alive now from garbage collection, and collects less often.

    Called once, when a server is ready for requests: libraries and configuration are some hundred thousand objects, and
    a full collection that walks them would hold the event loop up for 100 ms.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)
