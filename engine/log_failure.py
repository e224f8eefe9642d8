"""Logging of exceptions."""

from __future__ import annotations

import logging
import traceback

logger = logging.getLogger(__name__)


def log_failure(what: str, error: BaseException) -> None:
    """Logs that ``what`` failed, with the type and the traceback of ``error``. Omits its message, which may quote a
    prompt."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    logger.error("%s failed with %s at\n%s", what, type(error).__name__, frames)
