"""What two test modules need is in a module of its own: who imports a test module gets its tests and fixtures too."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.engine.gguf_bytes import rewritten

TESTS = Path(__file__).resolve().parent
TEST_MODULE = re.compile(
    r"^ *(?:(?:from|import) +tests\.(?:\w+\.)*test_\w+|from +tests(?:\.\w+)* +import +(?:\([^)]*|[^#\n]*)\btest_\w+)",
    re.MULTILINE,
)
"""An import of a test module, in a source or in a script within it that another process runs."""


def imported_tests(source: str) -> list[str]:
    return [found.strip() for found in TEST_MODULE.findall(source)]


@pytest.mark.parametrize(
    "line",
    [
        "from tests.router.test_faults import wait_for",
        "import tests.router.test_faults as faults",
        "from tests.router import backend, test_faults",
        "from tests.router import (\n    backend,\n    test_faults,\n)",
        "from tests.test_prose import SOURCES",
        'CHILD = """\nimport sys\nfrom tests.state.test_outage import opened\n"""',
        "def late() -> None:\n    from tests.router.test_faults import wait_for",
    ],
)
def test_an_import_of_a_test_module_is_found(line: str) -> None:
    assert len(imported_tests(line)) == 1


@pytest.mark.parametrize(
    "line",
    [
        "from tests.router.waiting import wait_for",
        "from tests.load_tests.servers import served",
        "from cluster.state.test_double import Double",
        "assert picture == drawn, 'pytest tests/admin/test_top_command.py'",
    ],
)
def test_other_lines_are_not(line: str) -> None:
    assert imported_tests(line) == []


def test_no_module_imports_a_test_module() -> None:
    found = {
        str(path.relative_to(TESTS.parent)): lines
        for path in TESTS.rglob("*.py")
        if path.name != Path(__file__).name and (lines := imported_tests(path.read_text(encoding="utf-8")))
    }

    assert not found, (
        "Move what is imported to a module named by its noun, as tests/router/waiting.py is, or into a fixture of the "
        f"folder's conftest.py: {found}"
    )


def test_an_assertion_of_a_helper_tells_what_differs(tmp_path: Path) -> None:
    model = tmp_path / "model.gguf"
    model.write_bytes(b"a")

    with pytest.raises(AssertionError, match="1 == 2"):
        rewritten(model, b"a", b"bc")
