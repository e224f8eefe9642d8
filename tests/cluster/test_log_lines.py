"""A log line is one JSON object whatever is logged, says which request it belongs to, and quotes no exception."""

from __future__ import annotations

import asyncio
import json
import logging
import logging.handlers
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.telemetry.config import LogsConfig
from cluster.telemetry.log_context import log_with_trace, logged_request
from cluster.telemetry.log_lines import MAX_MESSAGE, MAX_TRACEBACK, JsonLines
from cluster.telemetry.logs import join

MARKER = "zanzibarmarker"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SOURCE = {"deployment": "fast", "replica": "r1", "tier": "fast"}


class Process:
    """The loggers of a process of Serve: its own, with a buffer before a file, and the root of all others."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.root = logging.RootLogger(logging.WARNING)
        self._loggers = logging.Manager(self.root)
        self.of_serve, self.ours = self.logger("ray.serve"), self.logger("router.app")
        self.of_serve.propagate = False
        self.reconfigure()

    def logger(self, name: str) -> logging.Logger:
        made = self._loggers.getLogger(name)
        made.setLevel(logging.INFO)
        return made

    def reconfigure(self) -> None:
        """What Serve does when the settings of a deployment change: other handlers."""
        self.close()
        file = logging.handlers.RotatingFileHandler(self.path)
        self.of_serve.handlers = [logging.handlers.MemoryHandler(1000, target=file)]

    def lines(self) -> list[dict[str, Any]]:
        for handler in self.of_serve.handlers:
            handler.flush()
        return [json.loads(line) for line in self.path.read_text("ascii").splitlines()]

    def close(self) -> None:
        for handler in self.of_serve.handlers:
            target = getattr(handler, "target", None)
            handler.close()  # which writes what waits, and forgets its target
            if target is not None:
                target.close()


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    made = Process(tmp_path / "replica.log")
    join(made.root, made.of_serve, LogsConfig(format="json"), SOURCE)
    yield made
    made.close()


def test_a_line_says_when_where_what_and_for_which_request(process: Process) -> None:
    with logged_request("req_1"):
        process.ours.info("before the trace")
        log_with_trace(lambda: PARENT)
        process.ours.warning("lost %d of %s", 2, "lanes")
    first, second = process.lines()
    assert first["request_id"] == "req_1"
    assert "trace_id" not in first
    assert second.pop("time").endswith("+00:00")
    assert second == {
        "level": "WARNING",
        "logger": "router.app",
        "message": "lost 2 of lanes",
        "request_id": "req_1",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "span_id": "b7ad6b7169203331",
        **SOURCE,
    }


@pytest.mark.parametrize(
    "message",
    [
        "two\nlines\r\n and one more",
        'quotes " and \\ and \x00 and \u2028',
        "a lone surrogate \ud83d",
        b"\xff\xfe bytes",
        "ключ 钥匙 🔑",
    ],
)
def test_any_message_is_one_line_of_strict_json(process: Process, message: str | bytes) -> None:
    process.ours.error("said: %s", message)
    process.ours.error(message)
    text = process.path.read_bytes()
    assert text.count(b"\n") == 2
    for line in process.lines():
        line["message"].encode("utf-8")  # which a lone surrogate does not allow (inspect_ai#2316)


class Spiteful:
    """An object that cannot be shown."""

    def __str__(self) -> str:
        raise RuntimeError(MARKER)


@pytest.mark.parametrize("arguments", [(1, 2), ("text",), (Spiteful(),)])
def test_a_wrong_call_of_a_logger_is_a_line_too(process: Process, arguments: tuple[object, ...]) -> None:
    process.ours.error("number %d", *arguments)
    (line,) = process.lines()
    assert line["message"].startswith("number %d (its arguments cannot be formatted")
    assert MARKER not in json.dumps(line)


def test_an_object_that_cannot_be_shown_is_a_line_too(process: Process) -> None:
    process.ours.error(Spiteful())
    assert process.lines()[0]["message"].startswith("a Spiteful (its arguments cannot be formatted")


def test_the_traceback_of_an_endless_recursion_is_cut_in_its_middle(process: Process) -> None:
    def one() -> None:
        other()

    def other() -> None:
        one()

    try:
        one()
    except RecursionError:
        process.ours.exception("failed")
    traceback = process.lines()[0]["traceback"]
    assert len(traceback) < MAX_TRACEBACK + 100
    assert "in test_the_traceback_of_an_endless_recursion" in traceback
    assert traceback.endswith("RecursionError")


def test_a_callback_that_failed_is_logged_without_its_arguments(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asyncio.base_events.logger", process.logger("asyncio"))

    def fail(text: str) -> None:
        raise ValueError(text)

    async def main() -> None:
        asyncio.get_running_loop().call_soon(fail, MARKER)
        await asyncio.sleep(0.01)

    asyncio.run(main())
    (line,) = process.lines()
    assert line["message"].startswith("Exception in callback ")
    assert line["message"].endswith("fail")
    assert line["exception_type"] == "ValueError"
    assert MARKER not in json.dumps(line)


def test_a_very_long_message_is_cut(process: Process) -> None:
    process.ours.error("x" * (MAX_MESSAGE + 1))
    assert process.lines()[0]["message"].endswith(f"({MAX_MESSAGE + 1} characters)")


def test_an_exception_has_its_types_and_traceback_and_no_message(process: Process) -> None:
    def parse(text: str) -> None:
        raise ValueError(text)

    try:
        try:
            parse(MARKER)
        except ValueError as error:
            raise KeyError(MARKER) from error
    except KeyError:
        process.ours.exception("failed")
        process.of_serve.exception("Serve's own")
    for line in process.lines():
        assert line["exception_type"] == "KeyError"
        assert "raise ValueError(text)" in line["traceback"]
        assert line["traceback"].index("ValueError") < line["traceback"].index("KeyError")
        assert MARKER not in json.dumps(line)


def test_where_no_prompt_passes_the_messages_of_exceptions_stay(process: Process) -> None:
    join(process.root, process.of_serve, LogsConfig(format="json"), {"component_name": "controller"}, quotes=True)
    try:
        raise ValueError("no node has a GPU \ud83d")
    except ValueError:
        process.of_serve.exception("a replica cannot be placed")
    (line,) = process.lines()
    assert line["traceback"].endswith("ValueError: no node has a GPU \\ud83d")
    assert line["component_name"] == "controller"


def test_exceptions_that_refer_to_each_other_end(process: Process) -> None:
    first, second = ValueError(), KeyError()
    first.__cause__, second.__cause__ = second, first
    process.ours.error("failed", exc_info=first)
    assert process.lines()[0]["exception_type"] == "ValueError"


def test_a_task_that_nobody_awaited_is_logged_without_its_error(process: Process) -> None:
    asyncio_logger = process.logger("asyncio")

    async def fail() -> None:
        raise ValueError(MARKER)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(
            lambda loop, context: asyncio_logger.error(
                "%s\nfuture: %r", context["message"], context["future"], exc_info=context["exception"]
            )
        )
        task = loop.create_task(fail())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        del task

    asyncio.run(main())
    (line,) = process.lines()
    assert line["message"] == "Task exception was never retrieved"
    assert line["exception_type"] == "ValueError"
    assert MARKER not in json.dumps(line)


def test_set_up_twice_no_line_is_written_twice(process: Process) -> None:
    join(process.root, process.of_serve, LogsConfig(format="json"), {"deployment": "Router"})
    process.ours.info("once")
    process.of_serve.info("once, by Serve")
    lines = process.lines()
    assert [line["message"] for line in lines] == ["once", "once, by Serve"]
    assert {line["deployment"] for line in lines} == {"Router"}


def test_the_handlers_that_serve_makes_later_write_the_same_lines(process: Process) -> None:  # ray#38556
    process.ours.info("before")
    process.reconfigure()
    process.ours.info("after")
    assert [line["message"] for line in process.lines()] == ["before", "after"]


def test_a_line_that_waits_in_a_buffer_keeps_its_request(process: Process) -> None:  # ray#56094
    with logged_request("req_1"):
        process.of_serve.info("GET /v1/models 200 1.0ms")  # Serve's own lines wait
        assert process.path.read_text() == ""
    with logged_request("req_2"):
        process.ours.info("ours do not")
        assert len(process.path.read_text().splitlines()) == 2
    assert [line["request_id"] for line in process.lines()] == ["req_1", "req_2"]


async def test_a_task_that_outlives_its_request_does_not_carry_its_id(process: Process) -> None:
    ended = asyncio.Event()

    async def work() -> None:
        process.ours.info("during")
        await ended.wait()
        process.ours.info("after")

    with logged_request("req_1"):
        task = asyncio.create_task(work())
        await asyncio.sleep(0)
    ended.set()
    await task
    during, after = process.lines()
    assert during["request_id"] == "req_1"
    assert "request_id" not in after


def test_a_call_may_name_the_request_itself(process: Process) -> None:
    with logged_request("req_1"):
        process.ours.info("another's", extra={"request_id": "req_2"})
    assert process.lines()[0]["request_id"] == "req_2"


def test_text_is_as_serve_writes_it_and_quotes_no_exception_either(tmp_path: Path) -> None:
    process = Process(tmp_path / "text.log")
    join(process.root, process.of_serve, LogsConfig(), SOURCE)
    try:
        raise ValueError(MARKER)
    except ValueError:
        process.ours.exception("failed")
    process.close()
    text = process.path.read_text()
    assert text.startswith("failed\n")
    assert text.endswith("ValueError\n")
    assert MARKER not in text


def test_records_of_other_loggers_below_serve_are_formatted_too() -> None:
    record = logging.LogRecord("ray.serve.more", logging.INFO, "", 0, "told %s", ("so",), None)
    assert json.loads(JsonLines(SOURCE).format(record))["message"] == "told so"
