"""The messages between a router and a replica. They consist of builtins, which other releases can read.

From replica to router, a lane carries one item per engine step, or per heartbeat when the replica is idle. An item is a
tuple of the replica's load and the rows of the step, one for each Delta. The first item of a lane has the lane's header
as a third member. An item that reports ended requests of other lanes has these as its third member. From router to
replica, ``submit`` carries a request as a record. Its result is None or a refusal. ``submit_all`` carries several.

``cluster.lanes.dataclass_codec`` describes how fields that only one release has are handled.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cluster.lanes.dataclass_codec import Record, RecordCodec, Row, RowCodec, VersionMismatchError
from engine.api import (
    FAILURE_REASONS,
    ContextLengthError,
    Delta,
    EngineDeadError,
    EngineError,
    GenerationRequest,
    ModelInfo,
    ModelVersionError,
    OverloadedError,
    RequestError,
    Usage,
)
from router.ports.replica_load import ReplicaLoad
from router.ports.tier_backend import OrphanedAttempt

PROTOCOL = 1
"""The version of the messages. A release increments it when it changes the meaning or the default of a field. A new
field does not need that."""

LaneItem = tuple[Any, ...]
"""(load, rows). The first item of a lane is (load, rows, header), one with orphans (load, rows, {"orphans": [...]})."""

Orphan = tuple[str, str, tuple[int, ...]]
"""A request whose router may have died: its id, its account, and the fields of its Usage."""


_DELTAS = RowCodec(Delta)
_LOADS = RowCodec(ReplicaLoad)
_MODELS = RecordCodec(ModelInfo)
_REQUESTS = RecordCodec(GenerationRequest)

_BESIDE = {
    "trace_context": "trace",
    "trace_state": "tracestate",
    "ttft_slo_s": "ttft_slo_s",
    "refused_before": "refused_before",
    "attempt": "attempt",
    "surplus": "surplus",
}
"""Fields of a request that a replica may do without, with their names beside its other fields."""

_NAMES = _DELTAS.schema["Delta"]
_REASON, _USAGE = _NAMES.index("finish_reason"), _NAMES.index("usage")
_FAILURES = frozenset(reason.value for reason in FAILURE_REASONS)


def pack(deltas: Iterable[Delta]) -> list[Row]:
    """Returns ``deltas`` as rows, in order."""
    return _DELTAS.encode_all(deltas)


def is_last(row: Row) -> bool:
    """Returns ``Delta.last`` of the delta that this release encoded as ``row``."""
    return len(row) > _REASON and ((len(row) > _USAGE and row[_USAGE] is not None) or row[_REASON] in _FAILURES)


def usage_in(row: Row) -> tuple[int, ...] | None:
    """Returns the fields of the Usage in a row that this release encoded; None if it has none."""
    return row[_USAGE] if len(row) > _USAGE else None


def lane_item(load: ReplicaLoad, rows: list[Row], orphans: list[Orphan] | None = None) -> LaneItem:
    """Returns the lane item with the rows of a step, and with ``orphans``, the ended requests of other lanes, if there
    are any."""
    item = _LOADS.encode(load), rows
    return (*item, {"orphans": orphans}) if orphans else item


def orphans_in(item: LaneItem) -> list[OrphanedAttempt]:
    """Returns the ended requests of other lanes in an item, which must not be the first one of its lane."""
    rows = item[2].get("orphans", ()) if len(item) > 2 else ()
    return [OrphanedAttempt(request_id, account, Usage(*usage[:3])) for request_id, account, usage in rows]


def first_lane_item(load: ReplicaLoad, model: ModelInfo) -> LaneItem:
    """Returns the first item of a lane. Its header has the protocol, the schema of rows and loads, the model, and the
    calls that replicas of earlier releases do not have."""
    header = {
        "protocol": PROTOCOL,
        "schema": {**_DELTAS.schema, **_LOADS.schema},
        "model": _MODELS.encode(model),
        "calls": ["submit_all"],
    }
    return _LOADS.encode(load), [], header


def takes_several(item: LaneItem) -> bool:
    """Returns whether an item is the first one of a lane whose replica takes several requests in one call."""
    return len(item) > 2 and "submit_all" in item[2].get("calls", ())


class LaneReader:
    """The decoder of the items of one lane. ``header`` is the third member of its first item.

    ``model`` describes the replica's model. Raises VersionMismatchError for another protocol.
    """

    def __init__(self, header: Record) -> None:
        if header["protocol"] != PROTOCOL:
            raise VersionMismatchError(f"The replica speaks protocol {header['protocol']}, this router {PROTOCOL}.")
        self.delta = RowCodec(Delta, header["schema"]).decode
        """Returns the Delta of a row. Raises VersionMismatchError for a row with a value that is unknown here."""
        self.load = RowCodec(ReplicaLoad, header["schema"]).decode
        """Returns the ReplicaLoad of an item's first member."""
        self.model = _known(header["model"])


def _known(model: Record) -> ModelInfo:
    """Returns the model's description without the fields that are unknown here, which the router can ignore."""
    return _MODELS.decode({name: value for name, value in model.items() if name in _MODELS.names})


def pack_request(request: GenerationRequest, account: str = "") -> Record:
    """Returns ``request`` as builtins, for ``unpack_request``, and its account, for ``account_in``."""
    fields = _REQUESTS.encode(request)
    # Beside the fields, where a replica of a release without them ignores them. Among them it would refuse the request.
    beside = {each: fields.pop(name) for name, each in _BESIDE.items() if name in fields}
    return {"protocol": PROTOCOL, "request": fields, **({"account": account} if account else {}), **beside}


def account_in(packed: Record) -> str:
    """Returns the account of a packed request; "" if its router has sent none."""
    account: str = packed.get("account", "")
    return account


def unpack_request(packed: Record) -> GenerationRequest:
    """Returns the request that a router packed.

    Raises VersionMismatchError for another protocol, and for a field or a value that this release does not support.
    """
    if packed["protocol"] != PROTOCOL:
        raise VersionMismatchError(f"The request comes by protocol {packed['protocol']}, this replica has {PROTOCOL}.")
    try:
        beside = {name: packed[each] for name, each in _BESIDE.items() if each in packed}
        return _REQUESTS.decode({**packed["request"], **beside})
    except RequestError as error:
        # The router built the same request without an error, so its release permits other values.
        raise VersionMismatchError(error.message) from error


def pack_refusal(error: EngineError | VersionMismatchError) -> Record:
    """Returns a refusal as builtins, for ``unpack_refusal``.

    ``kinds`` has the names of the error's class and its base classes, subclass first. A router of an older release uses
    the first one that it knows.
    """
    kinds = tuple(kind.__name__ for kind in type(error).__mro__ if issubclass(kind, EngineError | VersionMismatchError))
    details = {
        name: getattr(error, name)
        for name in ("param", "code", "retry_after_s", "prompt_tokens")
        if hasattr(error, name)
    }
    return {"kinds": kinds, "message": str(error), **details}


def pack_fault(error: BaseException) -> Record:
    """Returns an error that is no refusal as builtins, for ``fault_in``: its class alone, since its message may quote a
    prompt."""
    return {"fault": type(error).__name__}


def fault_in(reply: Record | None) -> str | None:
    """Returns the class of the error with which one of several requests broke; None for a refusal, and for None."""
    return None if reply is None else reply.get("fault")


def unpack_refusal(packed: Record) -> EngineError | VersionMismatchError:
    """Returns (does not raise) the refusal that a replica packed; EngineError if none of its classes is known here."""
    message = packed["message"]
    for kind in packed["kinds"]:
        match kind:
            case "ContextLengthError":
                return ContextLengthError(message, packed["param"], packed["code"], packed.get("prompt_tokens"))
            case "RequestError":
                return RequestError(message, packed["param"], packed["code"])
            case "OverloadedError":
                return OverloadedError(message, packed["retry_after_s"])
            case "ModelVersionError":
                return ModelVersionError(message)
            case "EngineDeadError":
                return EngineDeadError(message)
            case "VersionMismatchError":
                return VersionMismatchError(message)
    return EngineError(message)
