"""``split_parts``: the files of a model that may be split. It imports no torch: routers ask for a model's version."""

from __future__ import annotations

import re
from pathlib import Path

from engine.gguf.errors import GGUFError

MAX_SPLIT = 1_000
_SPLIT_NAME = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf$")


def split_parts(path: Path) -> list[Path]:
    """Returns the files of a model: ``path`` alone, or all of NAME-00001-of-0000N.gguf. Raises GGUFError if ``path`` is
    a part other than the first."""
    found = _SPLIT_NAME.match(path.name)
    if found is None:
        return [path]
    if int(found["number"]) != 1:
        raise GGUFError(f"{path.name} is part {int(found['number'])} of a split file; give the first one")
    count = int(found["count"])
    if not 1 <= count <= MAX_SPLIT:
        raise GGUFError(f"{path.name} says that it has {count} parts")
    return [path.with_name(f"{found['stem']}-{number:05}-of-{count:05}.gguf") for number in range(1, count + 1)]
