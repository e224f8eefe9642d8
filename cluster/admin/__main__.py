"""``python -m cluster.admin``: the command ``manta``."""

from cluster.admin.main import run

run()
