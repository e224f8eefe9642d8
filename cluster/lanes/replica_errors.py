"""What a replica's refusal, or the end of its engine, is to the router."""

from __future__ import annotations

from cluster.lanes.dataclass_codec import VersionMismatchError
from engine.api import Delta, EngineDeadError, EngineError, FinishReason, ModelVersionError, OverloadedError
from router.ports import tier_backend
from router.ports.tier_backend import ReplicaOverloadedError, ReplicaUnreachableError, ReplicaVersionError


def router_error(refusal: EngineError | VersionMismatchError, replica_id: str) -> Exception:
    """Returns (does not raise) the error that the router raises for a replica's refusal.

    It is a ReplicaError if another replica may accept the request. Errors of the request are returned unchanged.
    """
    match refusal:
        case ModelVersionError():
            return tier_backend.ModelVersionError(str(refusal), replica_id)
        case VersionMismatchError():
            return ReplicaVersionError(refusal.message, replica_id)
        case OverloadedError():
            return ReplicaOverloadedError(refusal.message, replica_id, refusal.retry_after_s)
        case EngineDeadError():
            return ReplicaUnreachableError(str(refusal), replica_id)
    return refusal


def ended_with_engine(delta: Delta) -> bool:
    """Returns whether a request has ended because its engine died. A live engine reports token counts for each request
    that it ends."""
    return delta.usage is None and delta.finish_reason in (FinishReason.ERROR, FinishReason.ABORT)
