"""``manta top``: the service at a glance, in the terminal."""

from __future__ import annotations

import io
import json
import time
from collections import deque
from dataclasses import asdict
from pathlib import Path
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
    first = client.call("GET", OVERVIEW)
    time.sleep(every)
    return glance([first, client.call("GET", OVERVIEW)], since_start=True)


def _print_once(found: Glance, as_json: bool, picture: Path | None) -> None:
    if as_json:
        typer.echo(json.dumps(asdict(found), allow_nan=False))
    if picture is not None:
        picture.write_text(svg(page(found)), encoding="utf-8")
    if not as_json:
        console = Console()
        Console(width=console.width if console.is_terminal else WIDTH).print(page(found))


def svg(shown: Group) -> str:
    """Returns a picture of the screen."""
    console = Console(width=WIDTH, record=True, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(shown)
    picture = console.export_svg(title="manta top", unique_id="manta")
    return "\n".join(line.rstrip() for line in picture.splitlines()) + "\n"


class Screen:
    """The screen that is drawn again and again. While the service does not answer, it shows the last numbers."""

    def __init__(self, client: AdminClient, console: Console, every: float) -> None:
        self._client = client
        self._console = console
        self._every = every
        self._overviews: deque[Overview] = deque()
        self._error = ""
        self._sorts = list(SORTS)
        self._reverse = False

    def run(self) -> None:
        """Draws until q or Ctrl-C. Raises AdminError if the first look fails."""
        self._overviews.append(self._client.call("GET", OVERVIEW))
        with TerminalKeys() as keys, Live(console=self._console, screen=True, auto_refresh=False) as live:
            try:
                while self._shown_until_next_look(keys, live):
                    self._look()
            except KeyboardInterrupt:
                return

    def _shown_until_next_look(self, keys: TerminalKeys, live: Live) -> bool:
        """Draws, and draws again for each key, until it is time to look: keys do not make it look more often. Returns
        whether to go on."""
        until = time.monotonic() + self._every
        while (left_s := until - time.monotonic()) > 0:
            live.update(self._page(keys.available), refresh=True)
            pressed = keys.read(left_s)
            if QUIT in pressed:
                return False
            if "s" in pressed:
                self._sorts = [*self._sorts[1:], self._sorts[0]]
            if "r" in pressed:
                self._reverse = not self._reverse
        return True

    def _look(self) -> None:
        """Asks the service."""
        try:
            found = self._client.call("GET", OVERVIEW)
        except AdminError as error:
            self._error = str(error)
            return
        self._error = ""
        if found["now"] < self._overviews[-1]["now"]:
            self._overviews.clear()  # the clock went back, or a router with another clock has answered
        self._overviews.append(found)
        while found["now"] - self._overviews[0]["now"] > WINDOW_S:
            self._overviews.popleft()

    def _page(self, keys: bool) -> Group:
        shown = glance(list(self._overviews))
        return page(shown, sort=self._sorts[0], reverse=self._reverse, error=self._error, keys=keys)
