"""The settings of Ray and Serve in the tests.

Ray and Serve read them from the environment when they are imported. So each folder whose tests import Ray has a
conftest that imports this module first: pytest imports the tests of all folders before it runs any.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from cluster.local.environment import local_environment, prepare_directory

DIRECTORY = Path(tempfile.mkdtemp(prefix="manta-", dir="/tmp"))  # short: Ray's sockets have long names
atexit.register(shutil.rmtree, DIRECTORY, ignore_errors=True)  # also when no test asks for the cluster
prepare_directory(DIRECTORY)
# HOME and TMPDIR stay the tests' own: pytest and hypothesis keep their caches there.
os.environ.update({k: v for k, v in local_environment(DIRECTORY).items() if k not in ("HOME", "TMPDIR")})
# What tests wait for: the controller, which looks as often as in a cluster of many nodes, and reports for Prometheus.
# Ray keeps a gauge for two of these, and each is set again after REFRESH_S (cluster/telemetry/instruments.py).
os.environ.update({"RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.1", "RAY_metrics_report_interval_ms": "5000"})
