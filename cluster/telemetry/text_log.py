"""``RedactedTextLog``: the log of prompts and answers of tenants that have asked for it, redacted, in files of its own.

A request leaves its texts in a queue when its answer has ended; a thread redacts and writes them. No logger has them,
so that no handler of another log can. What cannot be redacted, or finds no room in the queue or on the disk, is not
written, and is counted.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from cluster.telemetry.config import TextsConfig
from cluster.telemetry.log_context import request_fields
from cluster.telemetry.redacted_record import common_length, redacted_record
from cluster.telemetry.text_files import TextFiles
from router.ports.text_log import LoggedText, RequestTexts
from safety.redacted_head import lookahead

logger = logging.getLogger(__name__)

RECORD_CHARACTERS = 512  # that each record and each text counts in the queue, beside its characters
CLOSE_S = 5.0  # for which ``close`` waits for what was taken
REST_S = 0.0003  # between two pieces of the work, in which requests get the processor
PRUNE_S = 600.0  # between looks for files that are too old

OnLost = Callable[[str], None]
"""Called, on any thread, for each record that is not written, with the reason: ``full``, ``redaction`` or ``disk``."""


class RedactedTextLog:
    """Implements ``TextLog``. ``source`` has fields for every record, such as the router's name."""

    def __init__(
        self,
        config: TextsConfig,
        files: TextFiles,
        source: Mapping[str, str] | None = None,
        on_lost: OnLost = lambda _: None,
    ) -> None:
        self._config = config
        self._files = files
        self._source = source or {}
        self._on_lost = on_lost
        self._queue: deque[tuple[RequestTexts, dict[str, str], int]] = deque()
        self._pending = 0  # characters in the queue, and of the record that is being redacted
        self._changed = threading.Condition()
        self._closing = self._hurries = False
        self._told: set[str] = set()  # the reasons of losses of which a line was logged
        self._thread: threading.Thread | None = None

    @property
    def max_text(self) -> int:
        """The characters of one text that it takes: what is behind them neither is written nor need be read."""
        return self._config.max_characters + lookahead()

    def offer(self, texts: RequestTexts) -> None:
        """Implements ``TextLog.offer``. The record gets the trace of the request that runs."""
        taken = replace(texts, prompt=self._heads(texts.prompt), answers=self._heads(texts.answers))
        size = RECORD_CHARACTERS + sum(RECORD_CHARACTERS + len(each.text) for each in (*taken.prompt, *taken.answers))
        with self._changed:
            has_room = not self._closing and self._pending + size <= self._config.max_pending_characters
            if has_room:
                self._pending += size
                self._queue.append((taken, request_fields(), size))
                self._changed.notify()
        if not has_room:
            self._lose("full")

    def start(self) -> None:
        """Begins to write, and deletes files that are not kept any longer. Raises OSError, also for a directory that
        cannot be written."""
        self._files.prepare()
        self._thread = threading.Thread(target=self._run, name="text-log", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Writes what was taken, for CLOSE_S seconds at most, and ends. What is left then is lost. The record that is
        being written has as long again."""
        if self._thread is None:
            return
        with self._changed:
            self._closing = self._hurries = True
            self._changed.notify()
        self._thread.join(CLOSE_S)
        with self._changed:
            left = len(self._queue)
            self._queue.clear()
        for _ in range(left):
            self._lose("full")
        self._thread.join(CLOSE_S)
        if self._thread.is_alive():  # the end of the router waits for no storage that hangs
            logger.error("the log of texts cannot be closed, its directory does not answer")
            return
        self._thread = None
        self._files.close()

    def _heads(self, texts: Sequence[LoggedText]) -> tuple[LoggedText, ...]:
        """Returns ``texts`` without what is neither written nor read, so that it does not wait in memory."""
        length = common_length([len(each.text) for each in texts], self._config.max_characters) + lookahead()
        return tuple(each if len(each.text) <= length else replace(each, text=each.text[:length]) for each in texts)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closing, PRUNE_S)
                if not self._queue and self._closing:
                    return
                taken = self._queue.popleft() if self._queue else None
            if taken is None:
                self._prune()
                continue
            self._write(taken[0], taken[1])
            with self._changed:
                self._pending -= taken[2]

    def _write(self, texts: RequestTexts, request: Mapping[str, str]) -> None:
        try:
            record = redacted_record(texts, {**self._source, **request}, self._config.max_characters, self._rest)
            line = json.dumps(record).encode() + b"\n"
        except Exception as error:  # noqa: BLE001 - whatever fails in the redaction, nothing may be written of it
            self._lose("redaction", type(error).__name__)
            return
        try:
            self._files.write(line)
        except OSError as error:
            self._lose("disk", error.strerror or type(error).__name__)

    def _prune(self) -> None:
        try:
            self._files.prune()
        except OSError as error:
            logger.error("files of the log of texts cannot be deleted: %s", error.strerror or type(error).__name__)

    def _rest(self) -> None:
        """Lets requests have the processor, unless the process waits for the end of this log."""
        if not self._hurries:
            time.sleep(REST_S)

    def _lose(self, reason: str, why: str = "") -> None:
        """Counts a record that is not written. The first of each reason is logged, without what it would have had."""
        self._on_lost(reason)
        if reason not in self._told:
            self._told.add(reason)
            logger.error("the log of texts has lost a record, %s %s; further ones are only counted", reason, why)
