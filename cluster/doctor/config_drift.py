"""``drift``: where a config that runs differs from the file. Pure. It names places, and no values: some are secret."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

ADDED = ("state.url_file", "state.journal", "router.keys")
"""What `make serve` adds where the file has none."""


def drift(wanted: object, running: object) -> list[str]:
    """Returns the paths at which ``running`` differs from ``wanted``, in order."""
    return [path for path in _paths(wanted, running, "") if path not in ADDED or _has(wanted, path)]


def _paths(wanted: object, running: object, at: str) -> Iterator[str]:
    if isinstance(wanted, Mapping) and isinstance(running, Mapping):
        for name in [*wanted, *(each for each in running if each not in wanted)]:
            path = f"{at}.{name}" if at else str(name)
            if name not in wanted and path == "state":
                yield from _paths({}, running[name], path)
            elif name not in wanted or name not in running:
                yield path
            else:
                yield from _paths(wanted[name], running[name], path)
    elif _is_list(wanted) and _is_list(running) and len(wanted) == len(running):  # type: ignore[arg-type]
        for place, (one, other) in enumerate(zip(wanted, running, strict=True)):  # type: ignore[call-overload]
            yield from _paths(one, other, f"{at}[{place}]")
    elif wanted != running:
        yield at


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _has(tree: object, path: str) -> bool:
    for name in path.split("."):
        if not isinstance(tree, Mapping) or name not in tree:
            return False
        tree = tree[name]
    return True
