"""The Redis of a local service: private, and started again with its data when it ends."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import redis

from cluster.config import StateConfig
from cluster.local.redis_server import RedisServer
from cluster.local.serve_config_loader import needs_state, with_state
from cluster.state.redis_store import RedisStore
from router.ports.key_store import KeyRecord
from router.ports.ledger_store import LedgerEntry, LedgerQuery
from router.ports.limit_store import Charge, LimitName, Renewal, Reservation, Scope
from tests.state.conftest import free_port, wait_until_ready

MANTA = {"name": "manta", "import_path": "cluster.app:build", "args": {"tiers": {}}}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    made = RedisServer(tmp_path / "redis", free_port())
    made.start()
    wait_until_ready(made)
    yield made
    made.stop()


def test_it_wants_a_password_that_no_other_user_sees(server: RedisServer, tmp_path: Path) -> None:
    password = server.url.partition("@")[0].removeprefix("redis://:")
    assert len(password) == 64
    with (
        redis.Redis.from_url(server.url.replace(password, "wrong")) as client,
        pytest.raises(redis.AuthenticationError),
    ):
        client.ping()

    for path in (tmp_path / "redis").iterdir():
        if path.is_file() and password in path.read_text(errors="replace"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    process = psutil.Process(server.pid)
    assert password not in " ".join(process.cmdline()) + str(process.environ())
    assert {connection.laddr.ip for connection in process.net_connections()} == {"127.0.0.1"}


def test_it_is_started_again_with_its_data(server: RedisServer) -> None:
    assert not server.keep_running()
    with redis.Redis.from_url(server.url) as client:
        client.set("a", "b")
        client.config_set("appendfsync", "always")
        client.set("c", "d")
    server.kill()

    assert server.keep_running()
    wait_until_ready(server)
    with redis.Redis.from_url(server.url) as client:
        assert (client.get("a"), client.get("c")) == (b"b", b"d")


def test_only_the_main_thread_starts_it(server: RedisServer) -> None:
    server.kill()
    with ThreadPoolExecutor(1) as pool, pytest.raises(RuntimeError, match="main thread"):
        pool.submit(server.keep_running).result()


def test_only_an_application_without_a_redis_of_its_own_gets_one() -> None:
    own = {**MANTA, "args": {"state": {"url": "redis://elsewhere"}}}
    other = {"name": "other", "import_path": "tests.cluster.smallapp:build"}
    config = with_state({"applications": [MANTA, own, other]}, Path("/run/url"), Path("/run/journal"))

    assert [needs_state(each) for each in (MANTA, own, other)] == [True, False, False]
    assert config["applications"][0]["args"]["state"] == {"url_file": "/run/url", "journal": "/run/journal"}
    assert config["applications"][1:] == [own, other]
    assert "state" not in MANTA["args"]


async def test_the_rights_in_the_operations_guide_are_enough(redis_server: RedisServer, tmp_path: Path) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    found = re.search(r"The rights of an ACL user: `([^`]*)`", guide)
    assert found
    with redis.Redis.from_url(redis_server.url) as admin:
        admin.execute_command("ACL", "SETUSER", "manta", "reset", "on", ">secret", *found[1].split())
    url = "redis://manta:secret@" + redis_server.url.rpartition("@")[2]
    store = RedisStore(StateConfig(journal=tmp_path, timeout_s=5), url)
    await store.start()
    limits = Scope("tenant", tuple((name, 10) for name in LimitName))

    decision = await store.reserve(Reservation("r", "acme", (limits,), Charge(1, 1)), 1000)
    assert decision.admitted
    await store.renew([Renewal("r", "acme", Charge(1, 1))], 1000)
    assert await store.settle("acme", "r", Charge(1, 1))
    assert await store.append([LedgerEntry("e", "acme", 0, {}, {"requests": 1})]) == 1
    assert len(await store.sums(LedgerQuery(0, 86_400_000))) == 1
    await store.put_key(KeyRecord("k", "acme", "d", "{}"))
    assert await store.key_by_digest("d") == (await store.keys())[0]
    assert await store.delete_key("k")
    await store.close()
