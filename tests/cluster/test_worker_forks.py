"""Workers of a local service are forked from one process, and their main threads wake up less often."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster.local.environment import prepare_directory
from cluster.local.ray_start import DASHBOARD_MODULES, with_modules
from cluster.local.worker_start import order_of, service_directory

REPOSITORY = Path(__file__).parents[2]
START = REPOSITORY / "cluster" / "local" / "worker_start.py"
CONTEXT = "--serialized-runtime-env-context"
WORKER = ["/ray/default_worker.py", "--node-id=7", "--temp-dir=/tmp/manta-x/ray"]

SCRIPT = """
import json, os, sys
told = {
    "name": __name__, "arguments": sys.argv, "mark": os.environ.get("MARK"), "directory": os.getcwd(),
    "parent": os.getppid(), "torch": "torch" in sys.modules, "preload": os.environ.get("LD_PRELOAD"),
    "own_group": os.getpgid(0) == os.getpid(),
}
print(json.dumps(told), flush=True)
"""

WAIT = """
import ctypes, os, struct, threading, time
libc = ctypes.CDLL(None)

def wait(milliseconds):
    timer = libc.timerfd_create(1, 0)
    libc.timerfd_settime(timer, 0, ctypes.c_char_p(struct.pack("4q", 0, 0, 0, milliseconds * 1000000)), None)
    began = time.monotonic()
    os.read(timer, 8)
    return time.monotonic() - began

found = [wait(5), wait(40)]
thread = threading.Thread(target=lambda: found.append(wait(5)))
thread.start()
thread.join()
print(*found)
"""


class TestOrders:
    def test_a_worker_of_python_is_forked_with_the_variables_of_its_runtime_environment(self) -> None:
        context = json.dumps({"env_vars": {"A": "1"}, "py_executable": sys.executable, "command_prefix": []})

        order = order_of(["-s", *WORKER, f"{CONTEXT}={context}", "--language=PYTHON"], {"A": "0", "B": "2"})

        assert order == {"arguments": WORKER, "environment": {"A": "1", "B": "2"}, "directory": os.getcwd()}

    @pytest.mark.parametrize(
        ("context", "language"),
        [
            ({"py_executable": "/usr/bin/other"}, "PYTHON"),
            ({"command_prefix": ["nice"]}, "PYTHON"),
            ({"override_worker_entrypoint": "/other.py"}, "PYTHON"),
            ({}, "JAVA"),
        ],
    )
    def test_others_are_left_to_ray(self, context: dict[str, Any], language: str) -> None:
        assert order_of([*WORKER, f"{CONTEXT}={json.dumps(context)}", f"--language={language}"], {}) is None

    def test_the_directory_is_that_of_the_service(self) -> None:
        assert service_directory(WORKER) == "/tmp/manta-x"
        assert service_directory([]) is None


class Service:
    """A directory of a local service, and a process that stands for its raylet."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.script = directory / "worker.py"
        self.script.write_text(SCRIPT, encoding="utf-8")
        self.raylet = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"])

    def start_worker(self, mark: str) -> dict[str, Any]:
        """Returns what a new worker tells."""
        context = json.dumps({"env_vars": {"MARK": mark}})
        arguments = [str(self.script), f"--temp-dir={self.directory / 'ray'}", f"{CONTEXT}={context}"]
        output = self.directory / f"{mark}.txt"
        with output.open("w", encoding="utf-8") as file:
            subprocess.run(
                [sys.executable, str(START), *arguments, "--language=PYTHON"],
                env={**os.environ, "RAY_RAYLET_PID": str(self.raylet.pid), "OMP_NUM_THREADS": "1"},
                cwd=REPOSITORY,
                stdout=file,
                check=True,
                timeout=120,
            )
        return self._told(output)

    def end(self) -> None:
        self.raylet.kill()
        self.raylet.wait()

    @staticmethod
    def _told(output: Path) -> dict[str, Any]:
        deadline = time.monotonic() + 30
        while not output.read_text().endswith("\n"):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        told: dict[str, Any] = json.loads(output.read_text().splitlines()[-1])
        return told


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    directory = tmp_path_factory.mktemp("s")
    prepare_directory(directory)
    running = Service(directory)
    yield running
    running.end()


def test_workers_are_forks_of_one_process_that_has_imported_what_they_need(service: Service) -> None:
    one, other = service.start_worker("a"), service.start_worker("b")

    assert one["parent"] == other["parent"]
    assert (one["mark"], other["mark"]) == ("a", "b")
    assert one["name"] == "__main__"
    assert one["arguments"] == [str(service.script), f"--temp-dir={service.directory / 'ray'}"]
    assert one["directory"] == str(REPOSITORY)
    assert one["torch"]
    assert one["own_group"]
    assert os.getpgid(one["parent"]) == one["parent"]
    assert one["preload"] is None
    server = psutil.Process(one["parent"])
    assert server.num_threads() == 1
    assert "slow_timers.so" in Path(f"/proc/{server.pid}/maps").read_text()


def test_when_the_process_has_died_the_next_worker_starts_another(service: Service) -> None:
    first = service.start_worker("c")
    psutil.Process(first["parent"]).kill()

    second = service.start_worker("d")

    assert second["mark"] == "d"
    assert second["parent"] != first["parent"]


def test_the_process_ends_with_the_raylet(service: Service) -> None:
    server = psutil.Process(service.start_worker("e")["parent"])

    service.end()

    server.wait(10)


def test_short_waits_of_the_main_thread_take_longer_and_no_others(tmp_path: Path) -> None:
    prepare_directory(tmp_path)
    environment = {**os.environ, "LD_PRELOAD": str(tmp_path / "slow_timers.so")}

    done = subprocess.run(
        [sys.executable, "-c", WAIT], env=environment, capture_output=True, text=True, check=True, timeout=60
    )

    short, longer, of_a_thread = map(float, done.stdout.split())
    assert short >= 0.099
    assert 0.039 <= longer < short
    assert 0.004 <= of_a_thread < short


def test_the_dashboard_loads_what_a_service_needs() -> None:
    assert with_modules(["python"], "dashboard") == ["python", f"--modules-to-load={','.join(DASHBOARD_MODULES)}"]
    assert with_modules(["python"], "raylet") == ["python"]
