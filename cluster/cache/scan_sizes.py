"""``ScanSizes``: how many rows a scan keeps after each look."""

from __future__ import annotations

from typing import NamedTuple


class ScanSizes(NamedTuple):
    """How many rows a scan keeps. A partition of at most ``exact`` rows is compared as a whole, and ``exact`` rows of a
    larger one by their codes. About ``near`` rows, or 1 in ``share`` where that is more, are kept by some of their
    bits; a partition of at most twice as many is looked at by all of them. ``block`` is the number of rows that lie
    together. ``exact`` and ``block`` are powers of two, ``exact`` is at least 64 and at most ``near``, and ``block`` is
    larger."""

    exact: int = 256
    near: int = 2048
    share: int = 192
    block: int = 65_536

    def kept(self, rows: int) -> int:
        """Returns how many of ``rows`` are kept by some of their bits."""
        return max(self.near, rows // self.share)


SIZES = ScanSizes()
