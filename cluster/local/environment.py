"""The environment variables, ports and directory of a local service. No other file reads or sets such variables.

Ray and Serve read most of their settings from environment variables when a process imports them. The launcher (or a
test that needs Ray) gets them from ``local_environment`` and starts the Ray head with them. Every actor inherits them.

A service keeps all its files in one temporary directory and has ports of its own. So it does not interfere with another
Ray cluster on the same machine.
"""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

LOOPBACK = "127.0.0.1"

# Ray's socket paths are about 70 characters longer than its directory, and a Unix socket's path has at most 107.
MAX_DIRECTORY_LENGTH = 35  # characters

# Below the kernel's ephemeral ports, so that no outgoing connection takes a port between the check and its use.
_PORTS = range(20_000, 32_000)
INGRESS_PORTS = 64
"""Ports for ingress replicas, for each of HTTP and gRPC. It is more than there are replicas, because the port of a
replica that has ended is not used again for a while."""
_SINGLE_PORTS = 8
_BLOCK = 2 * INGRESS_PORTS + _SINGLE_PORTS

# Copied from the caller's environment; all other variables are set here. Ray's own are left out on purpose: RAY_ADDRESS
# would connect the service to another cluster.
_INHERITED = (
    "PATH",
    "LANG",
    "LC_ALL",
    "TZ",
    "USER",
    "TERM",
    "LD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES",
    "PYTHONPATH",
    "HF_HOME",
)

_HAPROXY = Path(__file__).resolve().parents[2] / "deployments" / "haproxy"  # clusters use the same script

_TIMERS = Path(__file__).with_name("slow_timers.c")
COMPILER_S = 10.0  # longest wait for the compiler, which takes 60 ms

_WRAPPER = r"""#!/bin/sh
for argument; do
  if [ "$previous" = -f ]; then
    sed -i -E 's/^( *bind) \*?:([0-9]+)/\1 {loopback}:\2/' "$argument"
  fi
  previous=$argument
done
PATH={python}:$PATH exec {haproxy} "$@"
"""


# What a node of a cluster is to be started with (docs/operations.md), for `manta doctor`.
_CLUSTER_VARIABLES = (
    "RAY_SERVE_THROUGHPUT_OPTIMIZED",
    "RAY_SERVE_ENABLE_HA_PROXY",
    "RAY_SERVE_HAPROXY_BINARY_PATH",
    "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S",
    "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S",
    "RAY_AUTH_MODE",
    "HF_HUB_OFFLINE",
    "TRANSFORMERS_OFFLINE",
)
_CLUSTER_SECRETS = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


def cluster_variables() -> dict[str, str | None]:
    """Returns the variables of this process that the nodes of a cluster need; of the secret ones "set" instead of the
    value. None: not set."""
    secret = {name: "set" if os.environ.get(name) else None for name in _CLUSTER_SECRETS}
    return {name: os.environ.get(name) for name in _CLUSTER_VARIABLES} | secret


def runs_in_pod() -> bool:
    """Returns whether this process runs in a pod of Kubernetes, where NetworkPolicies close ports."""
    return "KUBERNETES_SERVICE_HOST" in os.environ


class NoFreePortsError(RuntimeError):
    """The machine has no block of free ports for the service."""


@dataclass(frozen=True)
class LocalPorts:
    """The ports of one local service, except that of the API. All of them are bound to loopback."""

    dashboard: int
    dashboard_agent: int
    metrics: int
    """Ray's Prometheus endpoint."""
    haproxy_metrics: int
    haproxy_stats: int
    fallback_http: int
    fallback_grpc: int
    redis: int
    ingress_http: int
    """The first of INGRESS_PORTS ports on which ingress replicas listen for HTTP from HAProxy."""
    ingress_grpc: int
    """The first of INGRESS_PORTS ports on which ingress replicas listen for gRPC."""

    @classmethod
    def free(cls, *, dashboard: int = 8265, api: int | None = None) -> Self:
        """Returns ports that are free at this moment. ``dashboard`` is used for the dashboard unless it is taken.
        ``api``, the port of the API, is none of them, though nothing listens there yet.

        Raises NoFreePortsError if no block of free ports is found.
        """
        block = _free_block(api)
        single = iter(range(block + 2 * INGRESS_PORTS, block + _BLOCK))
        return cls(
            dashboard=dashboard if is_free(dashboard) else next(single),
            dashboard_agent=next(single),
            metrics=next(single),
            haproxy_metrics=next(single),
            haproxy_stats=next(single),
            fallback_http=next(single),
            fallback_grpc=next(single),
            redis=next(single),
            ingress_http=block,
            ingress_grpc=block + INGRESS_PORTS,
        )


def is_free(port: int) -> bool:
    """Returns whether a server can listen on this port of loopback now."""
    with socket.socket() as probe:
        # Servers set it too. With it, a port with connections in TIME_WAIT counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def local_environment(
    directory: Path, ports: LocalPorts | None = None, *, inherit: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Returns all environment variables for the Ray processes of one local service, with a new random auth token.

    The service keeps its files below ``directory``. ``ports`` None: free ones are chosen. ``inherit`` supplies
    variables such as PATH; None: this process's own environment. Raises ValueError for a ``directory`` of more than
    MAX_DIRECTORY_LENGTH characters.
    """
    if len(str(directory)) > MAX_DIRECTORY_LENGTH:
        raise ValueError(f"{directory} is too long: Ray's Unix sockets need at most {MAX_DIRECTORY_LENGTH} characters")
    ports = ports or LocalPorts.free()
    source = os.environ if inherit is None else inherit
    return {
        **{name: source[name] for name in _INHERITED if name in source},
        **_files(directory),
        **_ray(),
        **_serve(ports),
        **_pollers(),
        **_haproxy(directory / "haproxy", ports),
        **_libraries(),
    }


def _files(directory: Path) -> dict[str, str]:
    return {
        "HOME": str(directory / "home"),  # Ray and Hugging Face write there; the user's own home may be missing or full
        "TMPDIR": str(directory / "tmp"),
        "RAY_TMPDIR": str(directory / "ray"),  # sessions, and the file by which drivers find the local cluster
    }


def _ray() -> dict[str, str]:
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        # Makes 127.0.0.1 the node's address, as Ray does on Windows and macOS. Otherwise Ray uses the machine's public
        # address, and its servers listen on every interface.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DEDUP_LOGS": "1",
        "RAY_COLOR_PREFIX": "0",
        "RAY_DISABLE_IMPORT_WARNING": "1",
    }


def _serve(ports: LocalPorts) -> dict[str, str]:
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(ports.fallback_http),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(ports.fallback_grpc),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(ports.ingress_http),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(ports.ingress_http + INGRESS_PORTS - 1),
        "RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT": str(ports.ingress_grpc),
        "RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT": str(ports.ingress_grpc + INGRESS_PORTS - 1),
        # By default a replica waits 30 s for load balancers on other nodes. Serve notifies the only one here itself.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0",
        "RAY_SERVE_PROXY_MIN_DRAINING_PERIOD_S": "0.1",  # must be positive
    }


def _pollers() -> dict[str, str]:
    """How often Ray and Serve look whether something has changed: less often than in a cluster of many nodes, because
    an idle service would take a quarter of a core for it. docs/benchmarks.md has what each of them takes."""
    return {
        # Serve's controller compares what runs with what should, here every half second instead of ten times a second.
        # It notices a replica that has died, or a load that has changed, up to 0.4 s later.
        "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",
        # Every replica and router adds its counts to the metrics; Prometheus reads them every 15 s or so.
        "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "2000",
        # CPU and memory of each process, and of the dashboard's own, for the dashboard and for Prometheus.
        "REPORTER_UPDATE_INTERVAL_MS": "15000",
        "METRICS_RECORD_INTERVAL_S": "15",
        # Every process reports its tasks for the dashboard's timeline, and the raylet its free CPUs to the only node.
        "RAY_task_events_report_interval_ms": "5000",
        "RAY_gcs_pull_resource_loads_period_milliseconds": "5000",
        "RAY_raylet_report_resources_period_milliseconds": "1000",
        "RAY_report_worker_backlog_interval_ms": "5000",
        # The raylet looks whether memory or disk run out (default: 4 and 10 times a second), whether garbage should be
        # collected or an idle worker ended (10 and 5 times), and after objects that other nodes send.
        "RAY_memory_monitor_refresh_ms": "1000",
        "RAY_local_fs_monitor_interval_ms": "5000",
        "RAY_raylet_check_gc_period_milliseconds": "2000",
        "RAY_kill_idle_workers_interval_ms": "2000",
        "RAY_object_manager_timer_freq_ms": "2000",
        "RAY_event_stats": "0",  # of every event of every loop, for a log
    }


def _haproxy(directory: Path, ports: LocalPorts) -> dict[str, str]:
    return {
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(directory / "run"),  # the wrapper that `prepare_directory` writes
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(directory / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(directory / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(directory),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(directory / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(directory / "metrics.sock"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(ports.haproxy_metrics),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(ports.haproxy_stats),
        "RAY_SERVE_HAPROXY_NBTHREAD": "2",
        # Seconds that a client may neither read nor send what it has to. Ray's default is an hour, for which a few
        # thousand connections would keep all others out. A client that waits for its answer is not meant.
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "60",
        # Serve replaces the HAProxy process whenever routers come and go, and when its controller starts again. The old
        # process goes on with its streams for this time, which is longer than `router.request_timeout_s`.
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "630",
    }


def _libraries() -> dict[str, str]:
    return {
        # Several engines share the machine; each sets its own thread count from the config.
        "OMP_NUM_THREADS": "1",
        # By default each of the 30 threads of an actor has a heap of its own, with gaps of its own.
        "MALLOC_ARENA_MAX": "2",
        # torch's threads sleep while they wait for one another. Otherwise they spin, and on cores that others use as
        # well the model of `general` takes 3 to 7 s of CPU to load instead of 2. The kernels' threads are not OpenMP's.
        "OMP_WAIT_POLICY": "passive",
        "TOKENIZERS_PARALLELISM": "false",
        # The embedded models are on disk. A model of the Hugging Face hub must be downloaded before the start.
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONUNBUFFERED": "1",
    }


def prepare_directory(directory: Path) -> None:
    """Creates the files that ``local_environment`` refers to: subdirectories of ``directory`` and a wrapper of HAProxy.

    The wrapper is a shell script that Serve runs as the HAProxy binary. In the config file that Serve has written, it
    binds the metrics and stats listeners to loopback, and then runs ``deployments/haproxy``. Without it they would
    listen on every interface.

    The service's home has a link to the user's cache of compiled kernels, which take a quarter of a minute to build.
    """
    for name in ("home", "tmp", "ray", "haproxy"):
        (directory / name).mkdir(mode=0o700, parents=True, exist_ok=True)
    wrapper = directory / "haproxy" / "run"
    text = _WRAPPER.format(
        loopback=LOOPBACK, haproxy=shlex.quote(str(_HAPROXY)), python=shlex.quote(str(Path(sys.executable).parent))
    )
    wrapper.write_text(text, encoding="utf-8")
    wrapper.chmod(0o700)
    _link_kernels(directory / "home")
    _build_timers(directory / "slow_timers.so")


def _build_timers(library: Path) -> None:
    """Compiles ``slow_timers.c``, which takes 60 ms. Without a compiler that does it workers wake up more often."""
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        return
    scratch = library.with_suffix(".new")  # a compiler that is ended may leave a part of it
    command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(scratch), str(_TIMERS), "-ldl"]
    quiet = subprocess.DEVNULL
    try:
        subprocess.run(command, stdin=quiet, stdout=quiet, stderr=quiet, check=True, timeout=COMPILER_S)
        scratch.rename(library)
    except (OSError, subprocess.SubprocessError):
        scratch.unlink(missing_ok=True)


def _link_kernels(home: Path) -> None:
    """Links ``~/.cache/manta`` into ``home``. Without a home that can be written, a service builds its own kernels."""
    link = home / ".cache" / "manta"
    try:
        kernels = Path.home() / ".cache" / "manta"
        kernels.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # a RuntimeError: the user has no home at all
        return
    if os.access(kernels, os.W_OK) and not link.is_symlink():
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(kernels)


def _free_block(api: int | None = None) -> int:
    """Returns the first port of a block of _BLOCK free ones without ``api``. Raises NoFreePortsError."""
    starts = list(_PORTS[::_BLOCK])[:-1]
    # A random start makes it unlikely that services that start together choose the same block.
    offset = secrets.randbelow(len(starts))
    for start in starts[offset:] + starts[:offset]:
        block = range(start, start + _BLOCK)
        if api not in block and all(map(is_free, block)):
            return start
    raise NoFreePortsError(
        f"there are no {_BLOCK} free ports in a row from {_PORTS.start} to {_PORTS.stop - 1} on {LOOPBACK}; "
        "`ss -ltn` shows what listens there"
    )
