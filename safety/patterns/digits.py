"""Finds the groups of digits in a candidate."""

from __future__ import annotations

import re

GROUP = re.compile(r"[0-9]+")


def groups(text: str) -> list[tuple[int, int]]:
    """Returns, for each group of digits, the offset of its end and the number of digits up to there."""
    ends, count = [], 0
    for group in GROUP.finditer(text):
        count += group.end() - group.start()
        ends.append((group.end(), count))
    return ends
