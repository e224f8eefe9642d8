"""Measurements on a Ray cluster of their own set its environment before Ray is imported, since Ray reads it then."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module",
    [
        "load_tests.access.ledger",
        "load_tests.chaos.__main__",
        "load_tests.clients.__main__",
        "load_tests.resume.__main__",
    ],
)
def test_a_measurement_imports_ray_after_it_has_set_the_environment(module: str) -> None:
    code = f"import sys, {module}; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
