"""Builds the C sources once per machine, with the system's compiler, for its processor."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from engine.kernels.cpu.tiles import Tiles, tiles

logger = logging.getLogger(__name__)

SOURCES = Path(__file__).with_name("src")
ENTRY = "step.c"
COMPILERS = ("cc", "gcc", "clang")
FLAGS = (
    "-O3",
    "-march=native",
    "-std=gnu11",
    "-shared",
    "-fPIC",
    "-pthread",
    "-fvisibility=hidden",
    "-ffp-contract=fast",  # multiply and add in one instruction; sums are never reordered, so no -ffast-math
    "-fno-math-errno",
    "-fno-trapping-math",
    "-Wno-psabi",  # vectors are passed between inlined functions only
)
TIME_LIMIT = 300.0  # seconds; a minute alone on a core, and more where all cores are busy


class CompilerError(RuntimeError):
    """The kernels cannot be built on this machine; the message says why."""


def built(cache: Path | None = None, registers: Tiles | None = None) -> Path:
    """Returns the path of the shared library for this machine, and compiles it if it is not in ``cache`` yet (default:
    the user's cache folder). ``registers`` says which tile registers it uses (default: those that this process uses, or
    none if the compiler does not support them).

    The file name has a checksum of sources, flags, compiler and processor, so that an outdated library is never used.
    If several processes need it at once, one compiles and the others wait. Raises CompilerError if it cannot be
    compiled, and ValueError as ``tiles`` does.
    """
    compiler = _compiler()
    folder = cache if cache is not None else _cache_folder()
    chosen = tiles() if registers is None else registers
    try:
        return _built_for(compiler, folder, chosen)
    except CompilerError as error:
        if registers is not None or chosen is not Tiles.HARDWARE:
            raise
        logger.warning("AMX: off; the kernels cannot be built for it: %s", error)
        return _built_for(compiler, folder, Tiles.NONE)


def built_source(source: Path, name: str, cache: Path | None = None) -> Path:
    """Returns the path of the shared library that one C file, which includes no other of its own, is compiled to for
    this machine. It is compiled if it is not in ``cache`` yet (default: the user's cache folder). Raises
    CompilerError."""
    return _built(_compiler(), (source,), source, name, FLAGS, cache if cache is not None else _cache_folder())


def _compiler() -> str:
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        raise CompilerError(f"no C compiler was found (looked for {', '.join(COMPILERS)})")
    return compiler


def _built_for(compiler: str, folder: Path, registers: Tiles) -> Path:
    flags = (*FLAGS, f"-DTILES={int(registers)}")
    return _built(compiler, tuple(sorted(SOURCES.iterdir())), SOURCES / ENTRY, "cpu", flags, folder)


def _built(
    compiler: str, sources: Sequence[Path], entry: Path, name: str, flags: tuple[str, ...], folder: Path
) -> Path:
    library = folder / f"{name}-{_fingerprint(compiler, sources, flags)}.so"
    if not library.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            if not library.exists():
                _compile(compiler, flags, entry, library)
    return library


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Waits until no other process compiles into ``folder``. The lock ends with the process that holds it, however that
    comes about."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _compile(compiler: str, flags: tuple[str, ...], entry: Path, library: Path) -> None:
    with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
        made = Path(scratch) / library.name
        command = [compiler, *flags, str(entry), "-o", str(made), "-lm"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CompilerError(f"{compiler} could not be run: {error}") from error
        if done.returncode != 0:
            raise CompilerError(f"{compiler} failed: {done.stderr.strip()[:500]}")
        made.replace(library)


def _fingerprint(compiler: str, sources: Sequence[Path], flags: tuple[str, ...]) -> str:
    checksum = hashlib.sha256()
    for path in sources:
        checksum.update(path.read_bytes())
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, timeout=TIME_LIMIT, check=False)
    for part in (*flags, compiler, version.stdout, platform.machine(), _processor()):
        checksum.update(part.encode())
    return checksum.hexdigest()[:20]


def _processor() -> str:
    """What ``-march=native`` depends on: the instruction sets of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())


def _cache_folder() -> Path:
    return Path.home() / ".cache" / "manta" / "kernels"
