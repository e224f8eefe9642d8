"""The version of the code that runs, for the build info."""

from __future__ import annotations

import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
"""Where this code is: a checkout, or the directory of an installed package."""


def release(checkout: Path = CHECKOUT) -> str:
    """Returns the version of ``checkout``; where that is none of Manta, of the installed package, or ``unknown``
    without one.

    On a Ray cluster a config may name another checkout than the one that is installed, and its code runs. Other
    packages leave files called pyproject.toml beside an installed one, and no file may keep a replica from starting.
    """
    try:
        project = tomllib.loads((checkout / "pyproject.toml").read_text("utf-8"))["project"]
        if project["name"] == "manta":
            return str(project["version"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # it is no project file, or cannot be read
    try:
        return version("manta")
    except PackageNotFoundError:
        return "unknown"
