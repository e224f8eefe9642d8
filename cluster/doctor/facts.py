"""What the checks judge. None of it is secret: of secret variables it is known whether they are set."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """A machine, as a process on it sees it. All of it is JSON, since it comes from other nodes. ``models`` says why
    each model cannot be read; "": it can. ``gpus`` are (name, driver version). ``clock_offset_s`` is its clock minus
    ours, which may be wrong by ``clock_error_s``. ``redis_fault`` says why Redis cannot be asked from there; "": it
    can. ``listening`` and ``healthy`` are those of ``PortFacts``, for the port of the service there. ``listeners`` are
    the ports that listen for the network and need not, with the address of each. ``jobs_open`` says whether Ray's API
    of jobs answers there without a token, and ``redis_open`` whether a Redis at Ray's usual port takes commands without
    a password; None: there is none. None: not asked for."""

    node: str
    python: str
    ray: str
    packages: Mapping[str, str] = field(default_factory=dict)  # versions of installed distributions
    variables: Mapping[str, str | None] = field(default_factory=dict)
    files_limit: int = 0
    shm_bytes: int | None = None  # None: there is no /dev/shm
    free_bytes: Mapping[str, int] = field(default_factory=dict)  # by directory
    models: Mapping[str, str] = field(default_factory=dict)
    gpus: Sequence[Sequence[str]] = ()
    clock_offset_s: float = 0.0
    clock_error_s: float = 0.0
    redis_fault: str | None = None
    listening: bool | None = None
    healthy: bool = False
    listeners: Mapping[str, str] | None = None
    jobs_open: bool | None = None
    redis_open: bool | None = None
    in_pod: bool = False  # of Kubernetes


@dataclass(frozen=True, slots=True)
class HostFacts:
    """A host none of whose inner ports this machine should reach. ``ports`` are those that it reaches. ``jobs_open`` is
    as in ``NodeFacts``. ``redis_open`` says of each port at which a Redis answers whether it wants no password."""

    host: str
    ports: Sequence[int] = ()
    jobs_open: bool | None = None
    redis_open: Mapping[int, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RedisFacts:
    """A Redis. ``fault`` says why it could not be asked; "": it was. A member is None if the Redis does not show it to
    its user."""

    fault: str = ""
    version: str | None = None
    policy: str | None = None  # maxmemory-policy
    persistent: bool | None = None  # by append-only file or snapshots
    last_write_ok: bool | None = None
    clock_offset_s: float | None = None  # its clock minus ours
    clock_error_s: float = 0.0


@dataclass(frozen=True, slots=True)
class PortFacts:
    """A port of this machine. ``healthy`` says whether /healthz of a service answers there."""

    port: int
    listening: bool
    healthy: bool = False


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """A certificate, by the file or address where it was found. ``expires_at`` is in Unix seconds; None: it could not
    be read, because of ``fault``."""

    place: str
    expires_at: float | None
    fault: str = ""


@dataclass(frozen=True, slots=True)
class RunningFacts:
    """The applications that Serve runs. ``fault`` says why Serve could not be asked; "": it was. ``arguments`` has the
    arguments of each application by its name, ``states`` its state. ``proxies`` has the state of the proxy of each node
    that has one, by the node's address; on ``redis_users`` are replicas that need Redis."""

    fault: str = ""
    arguments: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    states: Mapping[str, str] = field(default_factory=dict)
    proxies: Mapping[str, str] = field(default_factory=dict)
    redis_users: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class ConfigFacts:
    """The Serve config in a file. ``faults`` say what is wrong with it."""

    path: str
    applications: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # arguments by name
    faults: Sequence[str] = ()
    port: int | None = None
    models: Mapping[str, bool] = field(default_factory=dict)  # whether the service starts without it, by model
    gpus: float = 0.0  # that all replicas need, at their least numbers
    parallel: bool = False  # whether a model runs over several GPUs
    request_timeout_s: float | None = None  # of the router


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts that could be collected. None: they were not looked for, since no option names the place. ``now`` is in
    Unix seconds, ``here`` is this machine, ``constraints`` are the versions in constraints.txt. ``cluster_fault`` says
    why ``nodes`` lacks some; "": it has all. ``redis_open`` says whether the Redis of the config takes commands without
    a password; None: not known. ``hosts`` should have no inner port open to this machine."""

    now: float
    here: NodeFacts
    constraints: Mapping[str, str] | None = None  # versions by distribution
    nodes: Sequence[NodeFacts] | None = None
    cluster_fault: str = ""
    config: ConfigFacts | None = None
    redis: RedisFacts | None = None
    port: PortFacts | None = None
    certificates: Sequence[CertificateFacts] = ()
    running: RunningFacts | None = None
    redis_open: bool | None = None
    hosts: Sequence[HostFacts] = ()
