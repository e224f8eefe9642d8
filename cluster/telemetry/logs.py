"""``replica_logs`` and ``controller_logs``: have a process of Serve write its log by ``telemetry.logs``.

Serve gives each of its processes a log file, which the logger ``ray.serve`` writes, with rotation and a buffer. Our
lines and those of libraries join it: they pass by that logger. Serve makes the handlers anew whenever a deployment is
reconfigured. So nothing here depends on which they are: a filter of the logger, which stays, sees to their format.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping

from ray import serve
from ray.serve.exceptions import RayServeException
from ray.serve.schema import LoggingConfig

from cluster.telemetry.config import LogsConfig
from cluster.telemetry.log_lines import JsonLines, complete

OURS = ("cluster", "router", "safety", "engine")
"""The parents of our own loggers, which log from ``telemetry.logs.level`` on; libraries log from WARNING on."""
SERVE = "ray.serve"

logger = logging.getLogger(__name__)


def serve_logging(config: LogsConfig) -> LoggingConfig:
    """Returns Serve's logging settings for a deployment."""
    return LoggingConfig(encoding="JSON" if config.format == "json" else "TEXT", log_level=config.level.upper())


def replica_logs(config: LogsConfig, tier: str | None = None) -> None:
    """Sets up the log of the replica in this process. ``tier`` is the tier that the replica belongs to; None: it has no
    engine. Outside of Serve, as in a script or a test, it does nothing."""
    try:
        context = serve.get_replica_context()
    except RayServeException:
        return
    source = {"deployment": context.deployment, "replica": context.replica_tag, "application": context.app_name}
    _set_up(config, source if tier is None else {**source, "tier": tier})


def replica_name() -> str:
    """Returns the name of the replica in this process; outside of Serve, ``process-`` and the process id."""
    try:
        return serve.get_replica_context().replica_tag
    except RayServeException:
        return f"process-{os.getpid()}"


def controller_logs(config: LogsConfig) -> None:
    """Sets up the log of Serve's controller, where autoscaling runs. The messages of exceptions stay, since no prompt
    passes there."""
    _set_up(config, {"component_name": "controller"}, quotes=True)


def _set_up(config: LogsConfig, source: Mapping[str, str], *, quotes: bool = False) -> None:
    join(logging.getLogger(), logging.getLogger(SERVE), config, source, quotes=quotes)
    for name in OURS:
        logging.getLogger(name).setLevel(config.level.upper())
    threading.excepthook = log_thread


def join(
    root: logging.Logger,
    of_serve: logging.Logger,
    config: LogsConfig,
    source: Mapping[str, str],
    *,
    quotes: bool = False,
) -> None:
    """Passes the records of the logger ``root`` on to ``of_serve``, Serve's logger. Its lines get the fields of
    ``source``, as ``complete`` adds them, and are JSON if ``config`` says so. A second call replaces the first, so that
    no line is written twice. ``quotes`` is as in ``complete``."""
    for handler in [each for each in root.handlers if isinstance(each, ServeHandler)]:
        root.removeHandler(handler)
    for old in [each for each in of_serve.filters if isinstance(each, CompleteLines)]:
        of_serve.removeFilter(old)
    root.addHandler(ServeHandler(of_serve))
    formatter = JsonLines(source) if config.format == "json" else None
    of_serve.addFilter(CompleteLines(of_serve, formatter, source, quotes))


class ServeHandler(logging.Handler):
    """Passes records on to ``of_serve``, Serve's logger, and flushes its handlers. Serve's buffer holds 1,000 lines,
    for its access log: without the flush a warning would wait for a thousand requests."""

    def __init__(self, of_serve: logging.Logger) -> None:
        super().__init__()
        self._of_serve = of_serve

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._of_serve.handle(record)
            for handler in self._of_serve.handlers:
                handler.flush()
        except Exception:  # noqa: BLE001 - as any handler does: no log line ends the work that it tells of
            self.handleError(record)


class CompleteLines(logging.Filter):
    """Completes the records of the logger ``of``, and sets the formatter of its handlers; None: they keep their own.
    ``source`` and ``quotes`` are as in ``complete``."""

    def __init__(
        self, of: logging.Logger, formatter: logging.Formatter | None, source: Mapping[str, str], quotes: bool
    ) -> None:
        super().__init__()
        self._of = of
        self._formatter = formatter
        self._source = source
        self._quotes = quotes

    def filter(self, record: logging.LogRecord) -> bool:
        complete(record, self._source, quotes=self._quotes)
        if self._formatter is not None:
            for handler in self._of.handlers:
                target = getattr(handler, "target", None) or handler  # a buffer formats nothing itself
                if target.formatter is not self._formatter:
                    target.setFormatter(self._formatter)
        return True


def log_thread(args: threading.ExceptHookArgs) -> None:
    """Logs the exception that has ended a thread, without its message. It replaces Python's hook, which prints the
    message."""
    if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
        name = "" if args.thread is None else args.thread.name
        logger.error("the thread %s has ended with an error", name, exc_info=args.exc_value)
