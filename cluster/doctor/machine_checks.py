"""Checks of machines: versions, environment, limits, memory, disks, GPUs, models, clocks. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cluster.doctor.facts import Facts, NodeFacts
from cluster.doctor.finding import Finding, error, ok, skipped, warning

PYTHON = (3, 11)
GIB = 1024**3
FEWEST_FILES, FEW_FILES = 4096, 65536
"""A router has a file descriptor for each client, and Ray some for each process. Ray itself asks for FEW_FILES."""
OBJECT_STORE_BYTES = 128 * 1024**2
PARALLEL_SHM_BYTES = GIB  # NCCL exchanges by /dev/shm
LEAST_DISK_BYTES, LOW_DISK_BYTES = GIB, 5 * GIB
CLOCK_S, FAR_CLOCK_S = 1.0, 5.0
"""Clocks apart so far make traces and rates wrong, and so far also limits, leases and tokens."""

EXPECTED: Mapping[str, tuple[str, str]] = {
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": ("1", "lanes cost five times as much without it"),
    "RAY_SERVE_ENABLE_HA_PROXY": ("1", "a Python proxy is the ingress without it"),
    "RAY_AUTH_MODE": ("token", "anyone who reaches Ray's ports can run code without it"),
    "HF_HUB_OFFLINE": ("1", "models are fetched at run time without it"),
    "TRANSFORMERS_OFFLINE": ("1", "models are fetched at run time without it"),
}
"""The values that Ray's and Serve's variables need on every node, and why."""
SET = "set"
"""What stands for the value of a secret variable."""
TOKENS = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
HAPROXY = "RAY_SERVE_HAPROXY_BINARY_PATH"
CLIENT_S, HARD_STOP_S = "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S", "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S"
DEFAULT_HARD_STOP_S = 120.0  # Ray's
CLIENT_REMEDY_S = 60


def machine_findings(facts: Facts) -> Iterator[Finding]:
    """Yields the findings about each machine, and about the differences between machines."""
    nodes = [facts.here] if facts.nodes is None else facts.nodes
    yield from _python(facts.here)
    yield from _packages(facts)
    yield from _same_versions(facts)
    for node in nodes:
        yield from _variables(node, started=facts.nodes is not None)
        if facts.nodes is not None:
            yield from _haproxy_times(node, facts)
        yield from _limits(node, parallel=facts.config is not None and facts.config.parallel)
        yield from _disks(node)
        yield from _models(node, facts)
        yield from _clock(node)
    yield from _gpus(facts)


def _python(here: NodeFacts) -> Iterator[Finding]:
    found = tuple(int(part) for part in here.python.split(".")[:2])
    if found < PYTHON:
        yield error("python", f"Python {here.python}", "Install Python 3.11 or later.")
    else:
        yield ok("python", f"Python {here.python}")


def _packages(facts: Facts) -> Iterator[Finding]:
    if facts.constraints is None:
        yield skipped("packages", "there is no constraints.txt beside the code")
        return
    installed = facts.here.packages
    other = {
        name: (version, installed[name])
        for name, version in facts.constraints.items()
        if name in installed and installed[name] != version
    }
    if not other:
        yield ok("packages", "the versions of constraints.txt")
        return
    named = ", ".join(f"{name} {has} instead of {wanted}" for name, (wanted, has) in sorted(other.items())[:8])
    more = f" and {len(other) - 8} more" if len(other) > 8 else ""
    yield warning("packages", named + more, "Install what was tested: `make install`, or pip with -c constraints.txt.")


def _same_versions(facts: Facts) -> Iterator[Finding]:
    if facts.cluster_fault:
        yield error("cluster", facts.cluster_fault, "Give the address of a head that runs, and its token.")
    if not facts.nodes:
        return
    for what in ("ray", "python"):
        versions: dict[str, list[str]] = {}
        for node in facts.nodes:
            versions.setdefault(getattr(node, what), []).append(node.node)
        if len(versions) == 1:
            yield ok(f"{what} on all nodes", f"{next(iter(versions))} on {len(facts.nodes)}")
        else:
            seen = "; ".join(f"{version} on {', '.join(nodes)}" for version, nodes in sorted(versions.items()))
            yield error(f"{what} on all nodes", seen, f"Start all nodes with the same version of {what}.")


def _variables(node: NodeFacts, *, started: bool) -> Iterator[Finding]:
    """``started``: the node runs with these variables. Otherwise a node could still be started with others."""
    name, variables = f"environment of {node.node}", node.variables
    unset = [each for each in (*EXPECTED, HAPROXY) if variables.get(each) is None]
    found = [
        error(name, f"{variable} is {variables[variable]!r}: {why}", f"Start the node with {variable}={value}.")
        for variable, (value, why) in EXPECTED.items()
        if variables.get(variable) not in (value, None)
    ]
    if unset and not started:
        remedy = "Set them before `ray start`, see docs/operations.md; `make serve` does by itself."
        found.append(warning(name, f"not set: {', '.join(unset)}", remedy))
    if started:
        found += [_unset(name, variable) for variable in unset]
    if variables.get("RAY_AUTH_MODE") == "token" and not any(variables.get(each) for each in TOKENS):
        remedy = "Set RAY_AUTH_TOKEN to the cluster's secret."
        found.append(error(name, "RAY_AUTH_MODE is token, but there is no token", remedy))
    yield from found or [ok(name, "as Ray and Serve need it")]


def _unset(name: str, variable: str) -> Finding:
    if variable == HAPROXY:
        seen = f"{variable} is not set: HAProxy may not notice a client that leaves"
        return error(name, seen, f"Start the node with {variable} set to deployments/haproxy of the checkout.")
    value, why = EXPECTED[variable]
    return error(name, f"{variable} is not set: {why}", f"Start the node with {variable}={value}.")


def _haproxy_times(node: NodeFacts, facts: Facts) -> Iterator[Finding]:
    """What a node gives clients and streams, by HAProxy's times. Values that are no numbers stop HAProxy itself."""
    name, longest = f"HAProxy of {node.node}", None if facts.config is None else facts.config.request_timeout_s
    stop_s = _seconds(node.variables.get(HARD_STOP_S), DEFAULT_HARD_STOP_S)
    found = []
    if longest is not None and stop_s <= longest:
        seen = f"it cuts streams {stop_s:g} s after each change of the routers; requests may take {longest:g} s"
        found.append(error(name, seen, f"Start the node with {HARD_STOP_S}={longest + 30:g}."))
    if node.variables.get(CLIENT_S) is None:
        seen = "a client that neither reads nor sends holds its connection for an hour"
        found.append(warning(name, seen, f"Start the node with {CLIENT_S}={CLIENT_REMEDY_S}."))
    yield from found or [ok(name, f"streams have {stop_s:g} s when routers change")]


def _seconds(text: str | None, default: float) -> float:
    try:
        return default if text is None else float(text)
    except ValueError:
        return default


def _limits(node: NodeFacts, *, parallel: bool) -> Iterator[Finding]:
    name, limit = f"file descriptors of {node.node}", node.files_limit
    remedy = f"Raise the limit to {FEW_FILES} (`ulimit -n`, LimitNOFILE of the unit, or the container's ulimits)."
    if limit < FEWEST_FILES:
        yield error(name, f"a process may have {limit}: further clients are refused", remedy)
    elif limit < FEW_FILES:
        yield warning(name, f"a process may have {limit}", remedy)
    else:
        yield ok(name, f"a process may have {limit}")
    name, shm = f"/dev/shm of {node.node}", node.shm_bytes
    if shm is None:
        yield warning(name, "there is none: Ray's object store is on a disk", "Mount a tmpfs at /dev/shm.")
    elif parallel and shm < PARALLEL_SHM_BYTES:
        yield error(name, _size(shm), "Give a model over several GPUs 1 GiB of /dev/shm at least.")
    elif shm < OBJECT_STORE_BYTES:
        yield warning(name, _size(shm), "Give /dev/shm 128 MiB at least: containers have 64 by default.")
    else:
        yield ok(name, _size(shm))


def _disks(node: NodeFacts) -> Iterator[Finding]:
    for directory, free in node.free_bytes.items():
        name, seen = f"disk of {node.node}", f"{_size(free)} free at {directory}"
        remedy = "Make room: journals of the ledger, logs and kernels need some."
        if free < LEAST_DISK_BYTES:
            yield error(name, seen, remedy)
        elif free < LOW_DISK_BYTES:
            yield warning(name, seen, remedy)
        else:
            yield ok(name, seen)


def _models(node: NodeFacts, facts: Facts) -> Iterator[Finding]:
    optional = {} if facts.config is None else facts.config.models
    for model, fault in node.models.items():
        name = f"model {model} on {node.node}"
        if not fault:
            yield ok(name, "can be read")
        elif optional.get(model):
            yield warning(name, f"{fault}; the service starts without it", "Install the model if it is wanted.")
        else:
            yield error(name, fault, "Put the directory where every node can read it, for the user that runs Ray.")


def _clock(node: NodeFacts) -> Iterator[Finding]:
    yield from clock_findings(f"clock of {node.node}", node.clock_offset_s, node.clock_error_s)


def clock_findings(name: str, offset_s: float, error_s: float) -> Iterator[Finding]:
    """Yields the findings about the clock of ``name``, which is ``offset_s`` seconds ahead of ours. The offset may be
    wrong by ``error_s`` seconds."""
    apart, seen = abs(offset_s) - error_s, f"{offset_s:+.2f} s from ours (± {error_s:.2f})"
    remedy = "Have all machines keep time by NTP."
    if apart > FAR_CLOCK_S:
        yield error(name, seen, remedy)
    elif apart > CLOCK_S:
        yield warning(name, seen, remedy)
    else:
        yield ok(name, seen)


def _gpus(facts: Facts) -> Iterator[Finding]:
    wanted = 0.0 if facts.config is None else facts.config.gpus
    nodes = facts.nodes or [facts.here]
    found = [gpu for node in nodes for gpu in node.gpus]
    if not wanted:
        return
    seen = f"{len(found)} GPUs for replicas that need {wanted:g}"
    if len(found) < wanted:
        yield error("GPUs", seen, "Add nodes with GPUs, install their driver, or ask for fewer in the config.")
    else:
        yield ok("GPUs", seen)
    drivers = {str(driver) for _, driver in found}
    if len(drivers) > 1:
        yield warning("GPU drivers", f"versions {', '.join(sorted(drivers))}", "Install one version on all nodes.")


def _size(count: int) -> str:
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / 1024**2:.0f} MiB"
