"""The build info names the version of the code that runs, also where another one is installed."""

from __future__ import annotations

import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

from cluster.telemetry.release import CHECKOUT, release

ROOT = Path(__file__).resolve().parents[2]


def test_the_release_is_that_of_the_checkout_whose_code_runs(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "manta"\nversion = "9.8.7"\n')
    assert release(tmp_path) == "9.8.7"


def test_without_a_checkout_the_release_is_that_of_the_installed_package(tmp_path: Path) -> None:
    assert release(tmp_path) == version("manta")


@pytest.mark.parametrize(
    "text",
    ['[project]\nname = "other"\nversion = "7"\n', "[tool.other]\n", "[project", 'project = "manta"\n', "\udcff"],
)
def test_a_project_file_that_is_not_mantas_is_passed_over(tmp_path: Path, text: str) -> None:
    (tmp_path / "pyproject.toml").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert release(tmp_path) == version("manta")


def test_the_checkout_is_this_one() -> None:
    assert CHECKOUT == ROOT
    assert release() == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
