"""Makes the deployment of a small model, and calls it through a Serve handle."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from contextvars import Context
from functools import partial
from typing import Any

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from cluster.model_service.config import ReplicaSettings
from cluster.telemetry.config import LogsConfig
from cluster.telemetry.log_context import trace_headers
from cluster.telemetry.logs import serve_logging

SERVE_FAULTS = (RayError, RayServeException, OSError)
"""The errors of a call through a handle that mean that the replica cannot answer."""

UNKNOWN_ARGUMENT = re.compile("got an unexpected keyword argument '(\\w+)'")
"""In the TypeError of a replica of an earlier release, which Serve wraps or not, by the way of the call."""

MAX_CALLS_PER_REPLICA = 1_000_000
"""Calls gather in the replica, which batches them. Callers have deadlines, so Serve must never queue calls itself."""


def model_deployment(
    name: str, replica: type, config: ReplicaSettings, logs: LogsConfig, scaled: Mapping[str, Any] | None = None
) -> Any:
    """Returns the deployment ``name`` of the actor class ``replica``. The caller binds it to the actor's arguments.

    ``scaled`` has Serve's options for the number of replicas; None: it is ``config.replicas``."""
    return serve.deployment(
        name=name,
        **({"num_replicas": config.replicas} if scaled is None else scaled),
        ray_actor_options={"num_cpus": config.num_cpus},
        max_ongoing_requests=MAX_CALLS_PER_REPLICA,
        health_check_period_s=config.health_check_period_s,
        logging_config=serve_logging(logs),
        graceful_shutdown_wait_loop_s=0.2,  # between checks that a replica has drained; Serve's default is 2 s
    )(replica)


def pickling(handle: DeploymentHandle[Any]) -> DeploymentHandle[Any]:
    """Returns ``handle`` with plain pickle for requests and replies, which is faster than Ray's own for small ones."""
    return handle.options(request_serialization="pickle", response_serialization="pickle")


async def asked(name: str, call: Callable[[], Any], unavailable: type[Exception]) -> object:
    """Returns the result of ``call``, which calls a method of a Serve handle. ``name`` is the model's name, for the
    error.

    Raises ``unavailable`` if the replica cannot answer. If the caller is cancelled, the call in the replica is
    cancelled too.
    """
    # Outside the context of the HTTP request: Serve gives all calls within one the same internal id, and its routing
    # loop loses one of two calls that have the same id and wait for the same deployment.
    response = Context().run(call)
    try:
        return await response
    except SERVE_FAULTS as error:
        raise unavailable(f"the {name} was lost: {type(error).__name__}") from error
    except asyncio.CancelledError:
        response.cancel()  # the caller has left, or is late: the replica drops what has not begun
        raise


async def asked_in_trace(
    name: str, call: Callable[..., Any], unavailable: type[Exception], **optional: object
) -> object:
    """As ``asked``, where ``call`` takes the argument ``trace``: the ``trace_headers`` of the current request, if there
    are any. It also takes the arguments ``optional``.

    A replica of an earlier release may not have one of these arguments. Its error comes before it does anything, and it
    is asked again without. No other error has it asked twice.
    """
    named = dict(optional)
    if headers := trace_headers():
        named["trace"] = headers
    while True:
        try:
            return await asked(name, partial(call, **named), unavailable)
        except (unavailable, TypeError) as error:
            refusal = error if isinstance(error, TypeError) else error.__cause__
            unknown = UNKNOWN_ARGUMENT.search(str(refusal)) if isinstance(refusal, TypeError) else None
            if unknown is None or named.pop(unknown[1], None) is None:
                raise
