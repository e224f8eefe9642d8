"""The workers of the tests' Ray cluster are forks of one process, as those of ``make serve``. By itself Ray would
import Ray and torch anew for each of them, which takes 2.5 s of CPU."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import psutil
import pytest
from ray._private import parameter

from cluster.local.ray_start import WORKER_START
from load_tests.local_graph import start_ray
from tests.ray_settings import DIRECTORY

FORKS = str(DIRECTORY / "ray" / "workers.sock")  # beside Ray's own directory, which is called ray too
"""The last argument of the process from which workers are forked."""


def start_ray_with_forks() -> None:
    """Starts a Ray cluster of one node for this process."""
    with pytest.MonkeyPatch.context() as patch:
        # Ray looks it up when it starts a cluster.
        patch.setattr(parameter, "RayParams", partial(parameter.RayParams, setup_worker_path=str(WORKER_START)))
        start_ray()


def actor_pids(name: str) -> list[int]:
    """The processes of the actors whose name starts with ``name``."""
    return [process.pid for process in _workers() if "".join(_command(process)[:1]).startswith(f"ray::{name}")]


def _workers() -> Iterator[psutil.Process]:
    """Ray's workers: those that were forked, and those that the raylet, a child of this process, has started."""
    yield from psutil.Process().children(recursive=True)
    for process in psutil.process_iter():
        if _command(process)[-1:] == [FORKS]:  # an orphan: what has started it has ended
            yield from process.children(recursive=True)


def _command(process: psutil.Process) -> list[str]:
    """Its command line; nothing if it has ended since it was listed."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []
