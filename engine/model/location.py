"""Locates the files of a model: by a path, or in an installed Python package."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path, PurePosixPath

PACKAGE_SCHEME = "package:"


class ModelNotFoundError(FileNotFoundError):
    """There is no model at the location; the message says what is missing."""


class ModelDigestError(ValueError):
    """A model file has another SHA-256 than the expected one."""


def locate(model: str) -> Path:
    """Returns the path of ``model``: the path itself, or for ``package:DISTRIBUTION/FILE`` the path of that file in an
    installed distribution, none of whose code is run. Raises ModelNotFoundError if the distribution or the file is
    missing."""
    if not model.startswith(PACKAGE_SCHEME):
        path = Path(model)
        if not path.exists():
            raise ModelNotFoundError(f"{model} does not exist")
        return path
    name, _, file = model.removeprefix(PACKAGE_SCHEME).partition("/")
    try:
        found = distribution(name)
    except (PackageNotFoundError, ValueError) as error:
        raise ModelNotFoundError(f"{model}: the package {name!r} is not installed") from error
    # Only what the package itself has installed, and so no path out of it.
    if PurePosixPath(file) not in (found.files or ()):
        raise ModelNotFoundError(f"{model}: the package {name!r} {found.version} has no file {file!r}")
    path = Path(str(found.locate_file(file)))
    if not path.is_file():
        raise ModelNotFoundError(f"{model}: {file!r} of the package {name!r} is gone")
    return path


def check_digest(files: Sequence[Path], sha256: str) -> None:
    """Raises ModelDigestError if ``files``, one after the other, have another SHA-256 than ``sha256``, in hexadecimal.
    Raises OSError if one cannot be read."""
    found = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: found)
    if found.hexdigest() != sha256:
        what = str(files[0]) if len(files) == 1 else f"{files[0]} and the {len(files) - 1} files after it"
        have = "has" if len(files) == 1 else "have"
        raise ModelDigestError(f"{what} {have} the SHA-256 {found.hexdigest()}, not {sha256}: damaged or another model")
