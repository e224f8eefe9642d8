"""``complete`` and ``JsonLines``: what a log line says. Pure, but for the context variable of the current request.

In a process that prompts pass through, a line has no message of an exception, and no ``repr`` of one: both may quote a
prompt. It has the exception's type and its traceback, which has lines of source code and no values.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from json.encoder import encode_basestring_ascii

from cluster.telemetry.log_context import request_fields

MAX_MESSAGE = 16 * 1024  # characters; beyond, receivers of logs cut lines, which are no JSON then
MAX_TRACEBACK = 32 * 1024  # characters, for the same reason: functions that call each other for ever have 100,000
SERVE_FIELDS = ("application", "route", "component_name", "component_id")
"""Attributes that Serve's filters and its access log set."""
FIELDS = "manta_fields"
CALLBACK = "Exception in callback "
"""How asyncio begins to say that a callback has failed. Its name and its arguments follow."""


def complete(record: logging.LogRecord, source: Mapping[str, str], *, quotes: bool = False) -> None:
    """Adds to ``record`` the fields of the current request and those of ``source``, such as the replica. Removes the
    messages of exceptions, which may quote a prompt, unless ``quotes`` is set. It is called where the line is logged,
    since a buffer may format it within another request. A second call has no effect."""
    if hasattr(record, FIELDS):
        return
    fields = {**source, **request_fields()}
    if isinstance(own := getattr(record, "request_id", None), str) and own:  # of the logging call itself
        fields["request_id"] = own
    if "request_id" in fields:
        record.request_id = fields["request_id"]  # which Serve's text lines show
    if record.exc_info and record.exc_info[1] is not None:
        error = record.exc_info[1]
        fields |= {
            "exception_type": type(error).__name__,
            "traceback": shortened(full_stack_of(error) if quotes else stack_of(error)),
        }
        record.exc_text = fields["traceback"]
    record.exc_info = None
    record.msg, record.args = message_of(record), None
    setattr(record, FIELDS, fields)


def message_of(record: logging.LogRecord) -> str:
    """Returns the message of a record as valid Unicode, of MAX_MESSAGE characters at most."""
    try:
        text = record.getMessage()
    except Exception as error:  # noqa: BLE001 - a wrong call of a logger, or an argument's own fault, costs no request
        said = record.msg if isinstance(record.msg, str) else f"a {type(record.msg).__name__}"
        text = f"{said} (its arguments cannot be formatted: {type(error).__name__})"
    if record.name == "asyncio":
        text = text.partition("\n")[0]  # what follows is the repr of a task, with the message of its exception
        if text.startswith(CALLBACK):
            text = text.partition("(")[0]  # what follows are the arguments, which may be a prompt
    # A lone surrogate is no text in UTF-8, and no JSON for many who read it.
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= MAX_MESSAGE else f"{text[:MAX_MESSAGE]}… ({len(text)} characters)"


def shortened(stack: str) -> str:
    """Returns ``stack`` without its middle, if it has more than MAX_TRACEBACK characters. The beginning and the end of
    a stack say most."""
    if len(stack) <= MAX_TRACEBACK:
        return stack
    half = MAX_TRACEBACK // 2
    return f"{stack[:half]}\n… ({len(stack) - 2 * half} characters)\n{stack[-half:]}"


def stack_of(error: BaseException) -> str:
    """Returns the traceback of ``error`` and of its causes, with the types of the exceptions and without their
    messages."""
    parts: list[str] = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        parts.append("".join(traceback.format_tb(current.__traceback__)) + type(current).__name__)
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return "\n\nwhich led to\n\n".join(reversed(parts))


def full_stack_of(error: BaseException) -> str:
    """Returns the traceback of ``error`` and of its causes as Python prints it, with the messages of the exceptions."""
    text = "".join(traceback.format_exception(error)).rstrip()
    return text.encode("utf-8", "backslashreplace").decode()


class JsonLines(logging.Formatter):
    """Formats each record as one line: a JSON object, in ASCII. ``source`` has fields for every line, such as the
    replica."""

    def __init__(self, source: Mapping[str, str]) -> None:
        super().__init__()
        self._source = source

    def format(self, record: logging.LogRecord) -> str:
        complete(record, self._source)
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.msg,
            **getattr(record, FIELDS),
        }
        if isinstance(own := getattr(record, "request_id", None), str) and own:  # of Serve's own access log
            line.setdefault("request_id", own)
        for name in SERVE_FIELDS:
            if value := getattr(record, name, None):
                line[name] = str(value)
        # All values are texts; json.dumps, which expects anything, takes twice as long.
        return "{" + ", ".join([f'"{name}": {encode_basestring_ascii(value)}' for name, value in line.items()]) + "}"
