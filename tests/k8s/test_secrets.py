"""The printed Secrets open a real Redis with the configuration of the manifests, as far as each user may go."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import yaml

from cluster.config import check_redis_url
from cluster.local.redis_server import redis_binary
from k8s.secrets import RIGHTS, first_secrets, main, redis_secrets, redis_url, users_acl
from tests.k8s.overlays import OVERLAYS, ROOT, config_map, objects
from tests.state.conftest import free_port

PASSWORDS = {"manta": "m" * 32, "ray": "r" * 32}


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a Redis with the manifests' redis.conf and the ACL of PASSWORDS."""
    folder = tmp_path_factory.mktemp("redis")
    number = free_port()
    places = {"/etc/redis/conf/": f"{folder}/", "/etc/redis/acl/": f"{folder}/", "dir /data": f"dir {folder}"}
    for name, text in config_map("dev", "redis-config")["data"].items():
        for place, here in places.items():
            text = text.replace(place, here)
        (folder / name).write_text(text.replace("port 6379", f"port {number}\nbind 127.0.0.1"))
    (folder / "users.acl").write_text(users_acl(PASSWORDS))
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([str(redis_binary()), str(folder / "redis.conf")], stdout=log, stderr=log)
    try:
        _wait(number, folder / "log")
        yield number
    finally:
        server.terminate()
        server.wait()


def _wait(port: int, log: Path) -> None:
    for _ in range(500):
        try:
            client(port, "probe", "none").ping()
        except redis.exceptions.ConnectionError:
            time.sleep(0.01)
        else:
            return
    raise AssertionError(log.read_text())


def client(port: int, user: str, password: str) -> redis.Redis:
    """A client that is logged in as ``user``."""
    return redis.Redis(port=port, username=user, password=password, protocol=2)


def test_without_a_user_nothing_is_open(port: int) -> None:
    with pytest.raises(redis.exceptions.AuthenticationError):
        redis.Redis(port=port, protocol=2).ping()


def test_a_wrong_password_opens_nothing(port: int) -> None:
    with pytest.raises(redis.exceptions.AuthenticationError):
        client(port, "manta", "x").ping()


def test_the_probe_may_ping_and_no_more(port: int) -> None:
    probe = client(port, "probe", "none")
    assert probe.ping()
    for command in (("GET", "manta:x"), ("INFO",), ("KEYS", "*")):
        with pytest.raises(redis.exceptions.NoPermissionError):
            probe.execute_command(*command)


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("probe", ["startupProbe", "livenessProbe", "readinessProbe"])
def test_a_probe_of_redis_fails_by_an_error_as_while_it_reads_its_log(port: int, overlay: str, probe: str) -> None:
    # redis-cli ends with 0 after any answer, -LOADING too, unless it has -e.
    program = redis_binary().with_name("redis-cli")
    if not program.exists():
        pytest.skip(f"there is no {program}")
    (template,) = [each["spec"]["template"] for each in objects(overlay, "StatefulSet")]
    name, *arguments = template["spec"]["containers"][0][probe]["exec"]["command"]
    assert (name, arguments[-1]) == ("redis-cli", "ping")
    plain = [each for each in arguments[:-1] if each not in ("--tls", "--cacert", "/etc/redis/tls/ca.crt")]

    def exit_code(*command: str) -> int:
        done = subprocess.run([program, "-p", str(port), *plain, *command], capture_output=True, check=False)
        return done.returncode

    assert exit_code("ping") == 0
    assert exit_code("get", "manta:x") != 0


def test_routers_may_use_their_keys_and_scripts(port: int) -> None:
    router = client(port, "manta", PASSWORDS["manta"])
    assert router.set("manta:x", 1)
    assert router.eval("return redis.call('INCR', KEYS[1])", 1, "manta:x") == 2
    assert router.time()
    for command in (("GET", "RAYx@NODE"), ("FLUSHALL",), ("CONFIG", "GET", "*"), ("ACL", "LIST"), ("KEYS", "*")):
        with pytest.raises(redis.exceptions.NoPermissionError):
            router.execute_command(*command)


def test_ray_may_use_its_tables_and_not_those_of_routers(port: int) -> None:
    ray = client(port, "ray", PASSWORDS["ray"])
    table = "RAY1234@ACTOR"
    # What the GCS sends, and the job that removes its tables.
    assert ray.info("server")
    ray.delete("DUMMY")
    assert ray.hset(table, "a", "1") == 1
    assert ray.hsetnx(table, "b", "2")
    assert ray.hget(table, "a") == b"1"
    assert ray.hmget(table, ["a", "b"]) == [b"1", b"2"]
    assert ray.hexists(table, "a")
    assert dict(ray.hscan_iter(table)) == {b"a": b"1", b"b": b"2"}
    assert ray.hdel(table, "b") == 1
    assert ray.incrby("RAY1234@JobCounter", 1) == 1
    assert sorted(ray.scan_iter("RAY1234*")) == [table.encode(), b"RAY1234@JobCounter"]
    assert ray.unlink(table, "RAY1234@JobCounter") == 2
    for command in (("GET", "manta:x"), ("FLUSHALL",), ("EVAL", "return 1", "0"), ("CONFIG", "GET", "*")):
        with pytest.raises(redis.exceptions.NoPermissionError):
            ray.execute_command(*command)


def test_the_configuration_is_the_one_that_the_state_needs(port: int) -> None:
    folder = config_map("dev", "redis-config")["data"]
    text = "\n".join(folder.values())
    assert "maxmemory-policy noeviction" in text
    assert "appendonly yes" in text


def test_the_rights_of_routers_are_those_of_the_documents() -> None:
    documents = " ".join((ROOT / "docs" / "operations.md").read_text().split())
    assert RIGHTS["manta"].removeprefix("resetchannels ") in documents


@pytest.mark.parametrize("tls", [False, True])
def test_the_url_is_one_that_routers_take(tls: bool) -> None:
    url = redis_url("p", tls=tls)
    check_redis_url(url)
    pool = redis.Redis.from_url(url).connection_pool
    assert pool.connection_kwargs["host"] == "redis"
    assert issubclass(pool.connection_class, redis.SSLConnection) == tls
    assert pool.connection_kwargs.get("ssl_ca_certs") == ("/etc/redis-ca/ca.crt" if tls else None)


def test_every_run_makes_other_secrets() -> None:
    values = [
        value
        for _ in range(2)
        for each in [*first_secrets(), *redis_secrets(tls=True)]
        for value in each["stringData"].values()
    ]
    assert len(set(values)) == len(values)


def test_a_rotation_keeps_the_former_password_and_drops_the_one_before() -> None:
    first = users_acl({"manta": "1", "ray": "1"})
    second = users_acl({"manta": "2", "ray": "2"}, first)
    third = users_acl({"manta": "3", "ray": "3"}, second)

    def hashes(acl: str) -> list[str]:
        (line,) = [line for line in acl.splitlines() if line.startswith("user manta ")]
        return [word for word in line.split() if word.startswith("#")]

    assert hashes(second)[1] == hashes(first)[0]
    assert hashes(third)[1:] == hashes(second)[:1]


def test_the_command_prints_secrets_that_kubectl_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--tls"]) == 0
    made = {each["metadata"]["name"]: each for each in yaml.safe_load_all(capsys.readouterr().out)}
    assert made.keys() == {"manta-ray-token", "manta-review", "manta-redis-acl", "manta-redis-ray", "manta-state"}
    assert len(made["manta-review"]["stringData"]["review-secret"]) >= 32
    acl = tmp_path / "users.acl"
    acl.write_text(made["manta-redis-acl"]["stringData"]["users.acl"])
    assert main(["--rotate", str(acl)]) == 0
    rotated = {each["metadata"]["name"] for each in yaml.safe_load_all(capsys.readouterr().out)}
    assert rotated == made.keys() - {"manta-ray-token", "manta-review"}
