"""The messages between a router and a replica, made of builtins: cheap to pickle, and readable by another release.

Replica to router: one item per engine step (or per heartbeat when idle) travels through a lane. An item is a tuple of
the replica's load and the rows of that step, one row for each Delta. The first item of a lane has the lane's header as
a third part. Router to replica: a request travels as a record, by ``submit``; its answer is None or a refusal.

``cluster.lanes.codec`` says how each form deals with fields that only one side knows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cluster.lanes.codec import Record, RecordCodec, Row, RowCodec, VersionMismatchError
from engine.api import (
    FAILURE_REASONS,
    ContextLengthError,
    Delta,
    EngineDeadError,
    EngineError,
    EngineStats,
    GenerationRequest,
    ModelInfo,
    OverloadedError,
    RequestError,
)

PROTOCOL = 1
"""Raised when a release changes the meaning or the default of what travels; new fields do not need it."""

LaneItem = tuple[Any, ...]
"""(load, rows), or (load, rows, header) at the start of a lane."""


@dataclass(frozen=True, slots=True)
class ReplicaLoad:
    """How busy a replica's engine is, as of the step that carries it."""

    running: int = 0  # sequences
    waiting: int = 0  # sequences
    blocks_used: int = 0
    blocks_total: int = 0
    wait_s: float = 0.0  # estimated wait of one more request, in seconds

    @classmethod
    def of(cls, stats: EngineStats) -> ReplicaLoad:
        return cls(stats.running, stats.waiting, stats.blocks_used, stats.blocks_total, stats.wait_s)


_DELTAS = RowCodec(Delta)
_LOADS = RowCodec(ReplicaLoad)
_MODELS = RecordCodec(ModelInfo)
_REQUESTS = RecordCodec(GenerationRequest)

_NAMES = _DELTAS.schema["Delta"]
_REASON, _USAGE = _NAMES.index("finish_reason"), _NAMES.index("usage")
_FAILURES = frozenset(reason.value for reason in FAILURE_REASONS)


def pack(deltas: Iterable[Delta]) -> list[Row]:
    """Deltas as rows, in order."""
    return _DELTAS.encode_all(deltas)


def is_last(row: Row) -> bool:
    """``Delta.last`` of the delta that this release made ``row`` of."""
    return len(row) > _REASON and ((len(row) > _USAGE and row[_USAGE] is not None) or row[_REASON] in _FAILURES)


def lane_item(load: ReplicaLoad, rows: list[Row]) -> LaneItem:
    """An item with the rows of a step."""
    return _LOADS.encode(load), rows


def first_lane_item(load: ReplicaLoad, model: ModelInfo) -> LaneItem:
    """The first item of a lane: its header names the protocol, the schema of rows and loads, and the model."""
    header = {
        "protocol": PROTOCOL,
        "schema": {**_DELTAS.schema, **_LOADS.schema},
        "model": _MODELS.encode(model),
    }
    return _LOADS.encode(load), [], header


class LaneReader:
    """Reads the items of one lane. ``header`` is the third part of its first item.

    Raises VersionMismatchError for a lane of another protocol.
    """

    def __init__(self, header: Record) -> None:
        if header["protocol"] != PROTOCOL:
            raise VersionMismatchError(f"The replica speaks protocol {header['protocol']}, this router {PROTOCOL}.")
        self.delta = RowCodec(Delta, header["schema"]).decode
        """The Delta that a row was made of. Raises VersionMismatchError for a row that makes no sense here."""
        self.load = RowCodec(ReplicaLoad, header["schema"]).decode
        self.model = _known(header["model"])


def _known(model: Record) -> ModelInfo:
    """The model, described by as many fields as are known here: none of them asks anything of the router."""
    return _MODELS.decode({name: value for name, value in model.items() if name in _MODELS.names})


def pack_request(request: GenerationRequest) -> Record:
    """A request as plain builtins, without what has its default."""
    return {"protocol": PROTOCOL, "request": _REQUESTS.encode(request)}


def unpack_request(packed: Record) -> GenerationRequest:
    """The request that ``packed`` was made of.

    Raises VersionMismatchError for one that this release cannot honour to the letter.
    """
    if packed["protocol"] != PROTOCOL:
        raise VersionMismatchError(f"The request comes by protocol {packed['protocol']}, this replica has {PROTOCOL}.")
    try:
        return _REQUESTS.decode(packed["request"])
    except RequestError as error:
        # The router has made the same request without this error: its release has another range.
        raise VersionMismatchError(error.message) from error


def pack_refusal(error: EngineError | VersionMismatchError) -> Record:
    """A refusal as plain builtins.

    ``kinds`` are the names of its classes, subclass first: an older router takes the first that it knows.
    """
    kinds = tuple(kind.__name__ for kind in type(error).__mro__ if issubclass(kind, EngineError | VersionMismatchError))
    details = {name: getattr(error, name) for name in ("param", "code", "retry_after_s") if hasattr(error, name)}
    return {"kinds": kinds, "message": str(error), **details}


def unpack_refusal(packed: Record) -> EngineError | VersionMismatchError:
    """The refusal that ``packed`` was made of."""
    message = packed["message"]
    for kind in packed["kinds"]:
        match kind:
            case "ContextLengthError":
                return ContextLengthError(message, packed["param"], packed["code"])
            case "RequestError":
                return RequestError(message, packed["param"], packed["code"])
            case "OverloadedError":
                return OverloadedError(message, packed["retry_after_s"])
            case "EngineDeadError":
                return EngineDeadError(message)
            case "VersionMismatchError":
                return VersionMismatchError(message)
    return EngineError(message)
