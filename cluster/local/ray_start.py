"""Ray's command line for one machine: ``python -m cluster.local.ray_start start --head ...``. Three things differ, for
which ``ray start`` has no options:

* It starts no server for drivers on other machines (Ray Client), which takes 1.1 s of CPU and 49 MB. Ray only looks
  whether the client's dependencies are installed. A local service listens on loopback alone, and has no such drivers.
* Workers are started by ``worker_start``, which has them forked.
* The dashboard does not load its pages of Ray Data and Ray Train, of which a service has nothing. Each is a process.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ray._private import parameter, ray_constants, services
from ray.scripts import scripts

WORKER_START = Path(__file__).with_name("worker_start.py")
DASHBOARD_MODULES = (
    "UsageStatsHead",
    "NodeHead",
    "ReportHead",
    "JobHead",
    "MetricsHead",
    "ServeHead",
    "StateHead",
    "TaskEventsHead",
    "PlatformEventsHead",
)


def with_modules(command: Sequence[str], process_type: str) -> list[str]:
    """Returns the command line of one of Ray's processes; that of the dashboard names DASHBOARD_MODULES."""
    if process_type != ray_constants.PROCESS_TYPE_DASHBOARD:
        return list(command)
    return [*command, f"--modules-to-load={','.join(DASHBOARD_MODULES)}"]


def main() -> int:
    """Runs Ray's command line with the arguments of this process. Returns its exit code."""
    start = services.start_ray_process

    def start_ray_process(command: Sequence[str], process_type: str, **options: Any) -> Any:
        return start(with_modules(command, process_type), process_type, **options)

    scripts.get_ray_client_dependency_error = lambda: ImportError("not wanted on one machine")
    # Ray looks both up in their modules when it calls them.
    params = partial(parameter.RayParams, setup_worker_path=str(WORKER_START))
    parameter.RayParams = params  # type: ignore[misc, assignment]
    services.start_ray_process = start_ray_process  # type: ignore[assignment]
    return int(scripts.main() or 0)


if __name__ == "__main__":
    sys.exit(main())
