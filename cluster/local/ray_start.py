"""Ray's command line without Ray Client: ``python -m cluster.local.ray_start start --head ...``.

``ray start --head`` also starts a server for drivers on other machines (Ray Client), which takes 1.1 s of CPU and
49 MB. It has no option against it: it only looks whether the client's dependencies are installed. A local service
listens on loopback alone, and has no such drivers.
"""

from __future__ import annotations

import sys

from ray.scripts import scripts


def main() -> int:
    """Runs Ray's command line with the arguments of this process. Returns its exit code."""
    scripts.get_ray_client_dependency_error = lambda: ImportError("not wanted on one machine")
    return int(scripts.main() or 0)


if __name__ == "__main__":
    sys.exit(main())
