"""What Prometheus reads of a running graph, and the series in it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx

from load_tests.cpu import process_tree
from load_tests.overhead.server import Server

PORT = re.compile(r"--metrics[-_]export[-_]port=(\d+)")
PROCESS = re.compile(r'WorkerId="([^"]*)"')
OURS = "ray_manta_"
NO_PROCESS = ""
"""The process of what Ray has no room for: OpenTelemetry keeps 2,000 series of a metric, in each process and, in some
versions, in the agent of a node. It puts all others together without labels."""


def scrape(server: Server) -> str:
    """Returns what Prometheus reads of the graph: the agent of Ray's only node. Raises httpx.HTTPError if it does not
    answer."""
    return "".join(httpx.get(url, timeout=30).raise_for_status().text for url in metrics_urls(server))


def metrics_urls(server: Server) -> list[str]:
    """Returns the addresses of the metrics, by the command lines of Ray's processes."""
    found = {port for _, line in commands(server) for port in PORT.findall(line)}
    return [f"http://127.0.0.1:{port}/metrics" for port in sorted(found) if port != "0"]


def commands(server: Server) -> Iterator[tuple[int, str]]:
    """Yields the id and the command line of each process of the graph."""
    for pid in process_tree(server.pids):
        try:
            yield pid, Path(f"/proc/{pid}/cmdline").read_text("utf-8", errors="replace").replace("\0", " ")
        except OSError:
            continue  # it has ended


def series(text: str) -> Counter[str]:
    """Returns the number of series by metric, in Prometheus' text format."""
    return Counter(re.split(r"[{ ]", line, maxsplit=1)[0] for line in _samples(text))


def series_by_process(text: str) -> Counter[tuple[str, str]]:
    """Returns the number of Manta's series by metric and process (Ray's ``WorkerId``)."""
    ours = (line for line in _samples(text) if line.startswith(OURS))
    return Counter(
        (line.partition("{")[0], found[1] if (found := PROCESS.search(line)) is not None else NO_PROCESS)
        for line in ours
    )


def _samples(text: str) -> Iterator[str]:
    return (line for line in text.splitlines() if line and not line.startswith("#"))
