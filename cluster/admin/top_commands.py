"""``manta top``: the service at a glance, in the terminal."""

from __future__ import annotations

import io
import json
import threading
import time
from collections import deque
from dataclasses import asdict
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Annotated

import typer
from rich.console import Console, Group
from rich.live import Live

from cluster.admin.client import AdminClient, AdminError
from cluster.admin.command_options import client_of
from cluster.admin.terminal_keys import QUIT, TerminalKeys
from cluster.admin.top_numbers import Glance, Overview, glance
from cluster.admin.top_view import SORTS, page

OVERVIEW = "/admin/v1/overview"
WINDOW_S = 30.0
"""The window of rates and percentiles: long enough for a P99 of some hundred tokens, and short enough to be of now."""
KEY_S = 0.2
"""Seconds between two drawings, and the longest that a key waits."""
LATE_S = 3.0  # without an answer, after which the screen says so
WIDTH = 132  # characters, where there is no terminal


def top(
    context: typer.Context,
    once: Annotated[bool, typer.Option("--once", help="Print it once, as it is without a terminal.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers once, as JSON; null: not known.")] = False,
    every: Annotated[float, typer.Option(min=0.5, max=60, help="Seconds between two looks.")] = 1.0,
    picture: Annotated[Path | None, typer.Option("--svg", help="Also write what --once prints to this file.")] = None,
) -> None:
    """Watch tiers, queues, latencies, use and breakers.

    q quits, s sorts by the next column, r reverses. Rates and percentiles are of the last 30 s; with --once, rates are
    of one second and percentiles since the engines' start. Percentiles are upper bounds of buckets.
    """
    client, console = client_of(context), Console()
    if as_json or once or picture is not None or not console.is_terminal:
        _print_once(_two_looks(client, every), as_json, picture)
        return
    Screen(client, console, every).run()


def _two_looks(client: AdminClient, every: float) -> Glance:
    """Returns the numbers after two looks, so that there are rates. Raises AdminError."""
    first = overview(client)
    time.sleep(every)
    return glance([first, overview(client)], since_start=True)


def overview(client: AdminClient) -> Overview:
    """Returns the overview of the service. Raises AdminError, also if what answers is something else."""
    found = client.call("GET", OVERVIEW)
    if found.get("object") != "overview":
        raise AdminError("what answers there is no Manta service")
    return found


def _print_once(found: Glance, as_json: bool, picture: Path | None) -> None:
    if as_json:
        typer.echo(json.dumps(asdict(found), allow_nan=False))
    if picture is not None:
        picture.write_text(svg(page(found)), encoding="utf-8")
    if not as_json:
        console = Console()
        width = console.width if console.is_terminal else WIDTH
        Console(width=width).print(page(found, width=width))


def svg(shown: Group) -> str:
    """Returns the screen ``shown`` as an SVG document."""
    console = Console(width=WIDTH, record=True, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(shown)
    picture = console.export_svg(title="manta top", unique_id="manta")
    return "\n".join(line.rstrip() for line in picture.splitlines()) + "\n"


class Looks:
    """Reads overviews on a thread of its own, so that the screen obeys keys even while the service hangs."""

    def __init__(self, client: AdminClient) -> None:
        self._client = client
        self._found: SimpleQueue[Overview | AdminError] = SimpleQueue()
        self._asking = False

    def ask(self) -> None:
        """Begins to read an overview, unless one is being read."""
        if not self._asking:
            self._asking = True
            threading.Thread(target=self._ask, name="manta-top", daemon=True).start()

    def answer(self) -> Overview | AdminError | None:
        """Returns the overview, or the error of reading it, once; None: it is not there yet."""
        try:
            found = self._found.get_nowait()
        except Empty:
            return None
        self._asking = False
        return found

    def _ask(self) -> None:
        try:
            self._found.put(overview(self._client))
        except AdminError as error:
            self._found.put(error)


class Screen:
    """The screen of ``manta top``. It reads an overview every ``every`` seconds. While the service does not answer, it
    shows the last numbers."""

    def __init__(self, client: AdminClient, console: Console, every: float) -> None:
        self._client = client
        self._console = console
        self._every = every
        self._overviews: deque[Overview] = deque()
        self._asked_at = self._answered_at = 0.0  # monotonic
        self._error = ""
        self._sorts = list(SORTS)
        self._reverse = False

    def run(self) -> None:
        """Draws until q or Ctrl-C. Raises AdminError if the first look fails."""
        self._take(overview(self._client))
        looks = Looks(self._client)
        with TerminalKeys() as keys, Live(console=self._console, screen=True, auto_refresh=False) as live:
            try:
                while not self._quits(keys):
                    self._look(looks)
                    live.update(self._page(keys.available), refresh=True)
            except KeyboardInterrupt:
                return

    def _quits(self, keys: TerminalKeys) -> bool:
        """Waits a moment for a key, and obeys it. Returns whether it ends the command."""
        pressed = keys.read(KEY_S)
        if "s" in pressed:
            self._sorts = [*self._sorts[1:], self._sorts[0]]
        if "r" in pressed:
            self._reverse = not self._reverse
        return QUIT in pressed

    def _look(self, looks: Looks) -> None:
        """Asks the service every ``every`` seconds, and takes what it has answered."""
        now = time.monotonic()
        if now - self._asked_at >= self._every:
            self._asked_at = now
            looks.ask()
        found = looks.answer()
        if isinstance(found, AdminError):
            self._error, self._answered_at = str(found), now
        elif found is not None:
            self._take(found)
        elif now - self._answered_at > LATE_S:
            self._error = f"no answer for {now - self._answered_at:.0f} s"

    def _take(self, found: Overview) -> None:
        self._error = ""
        self._asked_at = self._answered_at = time.monotonic()
        if self._overviews and found["now"] < self._overviews[-1]["now"]:
            self._overviews.clear()  # the clock went back, or a router with another clock has answered
        self._overviews.append(found)
        while found["now"] - self._overviews[0]["now"] > WINDOW_S:
            self._overviews.popleft()

    def _page(self, keys: bool) -> Group:
        shown = glance(list(self._overviews))
        width = self._console.width
        return page(shown, sort=self._sorts[0], reverse=self._reverse, error=self._error, keys=keys, width=width)
