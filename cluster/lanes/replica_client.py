"""The calls to one tier's replicas, as lanes make them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from cluster.lanes.dataclass_codec import Record
from cluster.lanes.lane_messages import LaneItem


class ReplicaClient(Protocol):
    """The calls to one tier's replicas. All but ``connect`` raise ReplicaLostError if the replica cannot answer."""

    async def connect(self) -> None:
        """Makes Serve publish the tier's replicas in ReplicaDirectory. Returns when a replica has answered or the call
        has failed."""
        ...

    def lane(self, replica_id: str, lane_id: str) -> AsyncGenerator[LaneItem, None]:
        """Opens a lane and yields its items; the first has the lane's header. Closing the generator closes the lane."""
        ...

    async def submit(
        self, replica_id: str, lane_id: str, request: Record, *, validated_at_once: bool = False
    ) -> Record | None:
        """Submits a packed request, whose deltas go to the lane. Returns the packed refusal; None: it was accepted.

        ``validated_at_once``: the replica takes no time to validate it, so that it may share a call with others.
        """
        ...

    async def abort(self, replica_id: str, lane_id: str, request_ids: Sequence[str]) -> None:
        """Aborts requests of the lane. Unknown ids are ignored."""
        ...
