"""Python's garbage collection: paused while many objects are made, and spared those that stay."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache


@contextmanager
def gc_paused() -> Iterator[None]:
    """Turns garbage collection off for the context, and back on afterwards if it was on. For work that makes some
    hundred thousand small objects, none of them garbage, such as a vocabulary: collections that walk them would take
    most of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@cache
def freeze_gc() -> None:
    """Excludes all objects alive now from garbage collection, once per process. Libraries and a loaded model are some
    hundred thousand objects; a full collection that walks them would take 150 ms in the middle of a step."""
    gc.collect()
    gc.freeze()
