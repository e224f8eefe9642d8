"""``application_name``: the Serve application that this process belongs to."""

from __future__ import annotations

from ray import serve
from ray.serve.exceptions import RayServeException


def application_name() -> str:
    """Returns the name of the application that this process is a replica of; "" if it is none."""
    try:
        return serve.get_replica_context().app_name
    except RayServeException:
        return ""
