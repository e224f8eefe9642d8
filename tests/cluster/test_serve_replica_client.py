"""Calls to replicas of a tier that has none: Serve must not start one for them."""

from __future__ import annotations

import uuid
from typing import Any, cast

import pytest
from ray.serve.handle import DeploymentHandle

from cluster.lanes.replica_directory import ReplicaDirectory
from cluster.lanes.serve_replica_client import ServeReplicaClient
from router.ports.tier_backend import ReplicaLostError


class Handle:
    """A handle of Serve, whose calls are counted."""

    def __init__(self) -> None:
        self.deployment_name = f"tier-{uuid.uuid4()}"
        self.calls = 0

    def options(self, **options: object) -> Handle:
        return self

    @property
    def abort(self) -> Handle:
        return self

    async def remote(self, *arguments: object, **named: object) -> None:
        self.calls += 1


@pytest.mark.parametrize(("running", "calls"), [(frozenset({"a"}), 1), (frozenset(), 0)], ids=["one runs", "at zero"])
async def test_an_abort_at_a_tier_without_replicas_is_not_left_with_serve(running: frozenset[str], calls: int) -> None:
    handle = Handle()
    client = ServeReplicaClient(cast(DeploymentHandle[Any], handle))
    ReplicaDirectory.publish(handle.deployment_name, running)
    if calls:
        await client.abort("a", "lane", ["q"])
    else:
        with pytest.raises(ReplicaLostError):
            await client.abort("a", "lane", ["q"])
    assert handle.calls == calls
