"""Logging of exceptions."""

from __future__ import annotations

import logging
import traceback

logger = logging.getLogger(__name__)


def log_failure(what: str, error: BaseException, request_id: str | None = None) -> None:
    """Logs that ``what`` failed, with the type and the traceback of ``error``. Omits its message, which may quote a
    prompt. ``request_id`` is an attribute of the log record; None: it concerns no single request."""
    extra = {} if request_id is None else {"request_id": request_id}
    frames = "".join(traceback.format_tb(error.__traceback__))
    logger.error("%s failed with %s at\n%s", what, type(error).__name__, frames, extra=extra)
