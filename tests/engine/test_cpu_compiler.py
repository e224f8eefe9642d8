"""The compiled kernels are built once, for this machine, and a machine without a compiler is told so."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from engine.kernels.cpu import compiler
from engine.kernels.cpu.compiler import CompilerError, built
from engine.kernels.cpu.tiles import Tiles


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler that takes a tenth of the time."""
    monkeypatch.setattr(compiler, "FLAGS", ("-O0", *compiler.FLAGS[1:]))


@pytest.mark.usefixtures("hasty")
def test_a_library_is_built_once_and_loads(tmp_path: Path) -> None:
    first = built(tmp_path)
    changed = first.stat().st_mtime_ns

    assert built(tmp_path) == first
    assert first.stat().st_mtime_ns == changed
    assert [path.name for path in tmp_path.iterdir()] == [first.name]
    assert hasattr(ctypes.CDLL(str(first)), "manta_step")


@pytest.mark.usefixtures("hasty")
def test_processes_that_need_a_library_at_once_compile_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Path] = []
    compile_one = compiler._compile

    def counted(name: str, flags: tuple[str, ...], entry: Path, library: Path) -> None:
        compiled.append(library)
        compile_one(name, flags, entry, library)

    monkeypatch.setattr(compiler, "_compile", counted)
    with ThreadPoolExecutor(3) as threads:  # each has a handle of its own on the folder, as processes have
        found = list(threads.map(lambda _: built(tmp_path), range(3)))

    assert len(set(found)) == len(compiled) == 1


@pytest.mark.usefixtures("hasty")
def test_changed_sources_get_a_library_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = tmp_path / "src"
    shutil.copytree(compiler.SOURCES, sources)
    monkeypatch.setattr(compiler, "SOURCES", sources)
    first = built(tmp_path / "cache")
    with (sources / "step.c").open("a") as source:
        source.write("\n// changed\n")

    assert built(tmp_path / "cache") != first


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names processors of x86-64")
@pytest.mark.parametrize("registers", list(Tiles), ids=lambda each: each.name)
@pytest.mark.parametrize(
    "processor", ["nehalem", "haswell", "skylake-avx512", "cascadelake", "icelake-server", "cooperlake"]
)
def test_sources_are_sound_for_processors_with_other_instructions(processor: str, registers: Tiles) -> None:
    """Each of them has a set that the one before lacks. Tiles are assembled for any of them."""
    flags = [f"-march={processor}" if flag == "-march=native" else flag for flag in compiler.FLAGS]
    strict = [
        f"-DTILES={int(registers)}",
        "-O0",
        "-c",
        "-o",
        os.devnull,
        "-Wall",
        "-Wextra",
        "-Wno-unused-function",
        "-Wno-unused-parameter",
        "-Werror",
    ]

    done = subprocess.run(
        ["cc", *flags, *strict, str(compiler.SOURCES / compiler.ENTRY)], capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr


def test_kernels_are_built_before_any_package_is_installed() -> None:
    code = "import engine.kernels.cpu.__main__, tests.engine.kernel_builds"
    root = compiler.SOURCES.parents[3]

    subprocess.run([sys.executable, "-S", "-c", code], check=True, timeout=60, cwd=root)


def test_without_a_compiler_the_error_names_what_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(CompilerError, match="cc, gcc, clang"):
        built(tmp_path)


def test_what_the_compiler_complains_about_is_in_the_error_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = tmp_path / "src"
    sources.mkdir()
    (sources / "step.c").write_text("this is not C")
    monkeypatch.setattr(compiler, "SOURCES", sources)

    with pytest.raises(CompilerError, match="error"):
        built(tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())
