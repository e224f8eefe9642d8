"""``RouterSwitch``: has HAProxy lead new requests to one of two routers, by its admin socket."""

from __future__ import annotations

import csv
import io
import socket
import time
from collections import defaultdict
from pathlib import Path

UP_S = 60.0  # within which HAProxy finds a router healthy that it is to lead to again


class RouterSwitch:
    """Two routers behind the HAProxy of a graph, which has its files in ``directory``, by node. Raises TimeoutError if
    it does not lead to two routers within UP_S."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._routers: list[tuple[str, str]] = []
        deadline = time.monotonic() + UP_S
        while len(self._routers) != 2:
            if time.monotonic() > deadline:
                raise TimeoutError(f"HAProxy does not lead to two routers within {UP_S:g} s")
            time.sleep(0.2)
            self._routers = self._pair()

    def lead_to(self, number: int) -> None:
        """Has new requests go to the router ``number`` (0 or 1) alone. Open connections stay. Raises TimeoutError if
        the router is not healthy within UP_S."""
        self._ask(f"set server {'/'.join(self._routers[number])} state ready")
        deadline = time.monotonic() + UP_S
        while not self._statistics()[self._routers[number]]["status"].startswith("UP"):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the router {number} was not healthy within {UP_S:g} s")
            time.sleep(0.05)
        self._ask(f"set server {'/'.join(self._routers[1 - number])} state maint")

    def requests(self, number: int) -> int:
        """Returns how many requests HAProxy has led to the router ``number``."""
        return int(self._statistics()[self._routers[number]]["stot"])

    def _pair(self) -> list[tuple[str, str]]:
        """Returns the backend and the name of both routers; none if no backend has two servers that are up."""
        found = defaultdict(list)
        for name, row in self._statistics().items():
            if row["act"] == "1" and row["status"].startswith("UP"):
                found[name[0]].append(name)
        return next((names for names in found.values() if len(names) == 2), [])

    def _statistics(self) -> dict[tuple[str, str], dict[str, str]]:
        """Returns the statistics of each server, by the names of its backend and its own."""
        rows = csv.DictReader(io.StringIO(self._ask("show stat -1 4 -1").removeprefix("# ")))
        return {(row["pxname"], row["svname"]): row for row in rows}

    def _ask(self, command: str) -> str:
        """Returns what HAProxy answers to a command; nothing as long as it has no admin socket."""
        path = next(self._directory.glob("*/admin.sock"), None)
        if path is None:
            return ""
        with socket.socket(socket.AF_UNIX) as admin:
            admin.settimeout(10)
            admin.connect(str(path))
            admin.sendall(command.encode() + b"\n")
            answer = b"".join(iter(lambda: admin.recv(65_536), b""))
        return answer.decode()
