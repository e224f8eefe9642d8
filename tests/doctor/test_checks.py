"""The checks of ``manta doctor``: what each says of facts that no test can plant on a real machine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cluster.doctor.config_drift import drift
from cluster.doctor.facts import ConfigFacts, Facts, NodeFacts, RedisFacts, RunningFacts
from cluster.doctor.finding import Finding, Severity
from cluster.doctor.machine_checks import (
    CLIENT_S,
    HAPROXY,
    HARD_STOP_S,
    machine_findings,
)
from cluster.doctor.service_checks import service_findings
from tests.doctor.good_node import GIB, GOOD, VARIABLES

CONFIG = ConfigFacts(
    "prod.yaml", {"manta": {}}, port=8000, models={"models/fast": False}, gpus=2, request_timeout_s=600
)


def findings(*nodes: NodeFacts, **fields: Any) -> list[Finding]:
    facts = Facts(1_000_000.0, GOOD, {"ray": "2.60.0"}, nodes or (GOOD,), config=CONFIG)
    facts = replace(facts, **fields)
    return [*machine_findings(facts), *service_findings(facts)]


def worst(found: list[Finding], name: str) -> Finding:
    order = list(Severity)
    return max((each for each in found if each.name.startswith(name)), key=lambda each: order.index(each.severity))


def test_nothing_is_wrong_with_what_is_as_it_should_be() -> None:
    found = findings(GOOD, replace(GOOD, node="10.0.0.2"))
    assert {each.severity for each in found} <= {Severity.OK, Severity.SKIPPED}, found
    assert all(not each.remedy for each in found)


@pytest.mark.parametrize(
    ("change", "name", "severity", "seen"),
    [
        ({"ray": "2.59.0"}, "ray on all nodes", "error", "2.59.0 on 10.0.0.2"),
        ({"python": "3.12.1"}, "python on all nodes", "error", "3.12.1 on 10.0.0.2"),
        ({"clock_offset_s": 7.0}, "clock of 10.0.0.2", "error", "+7.00 s"),
        ({"clock_offset_s": -2.0, "clock_error_s": 0.1}, "clock of 10.0.0.2", "warning", "-2.00 s"),
        ({"clock_offset_s": 7.0, "clock_error_s": 7.0}, "clock of 10.0.0.2", "ok", "± 7.00"),
        ({"shm_bytes": 64 * 1024**2}, "/dev/shm of 10.0.0.2", "warning", "64 MiB"),
        ({"shm_bytes": None}, "/dev/shm of 10.0.0.2", "warning", "none"),
        ({"free_bytes": {"/var/lib/manta": GIB // 2}}, "disk of 10.0.0.2", "error", "512 MiB free at /var/lib/manta"),
        ({"free_bytes": {"/tmp": 2 * GIB}}, "disk of 10.0.0.2", "warning", "2.0 GiB"),
        ({"files_limit": 1024}, "file descriptors of 10.0.0.2", "error", "1024"),
        ({"models": {"models/fast": "Permission denied"}}, "model models/fast on 10.0.0.2", "error", "Permission"),
        ({"gpus": [("H100", "535.2")]}, "GPU drivers", "warning", "535.2, 570.1"),
        ({"variables": VARIABLES | {"RAY_AUTH_MODE": "disabled"}}, "environment of 10.0.0.2", "error", "'disabled'"),
        ({"variables": VARIABLES | {"RAY_AUTH_TOKEN": None}}, "environment of 10.0.0.2", "error", "no token"),
        ({"variables": VARIABLES | {HAPROXY: None}}, "environment of 10.0.0.2", "error", HAPROXY),
        ({"variables": VARIABLES | {HARD_STOP_S: None}}, "HAProxy of 10.0.0.2", "error", "120 s after each change"),
        ({"variables": VARIABLES | {HARD_STOP_S: "600"}}, "HAProxy of 10.0.0.2", "error", "may take 600 s"),
        ({"variables": VARIABLES | {CLIENT_S: None}}, "HAProxy of 10.0.0.2", "warning", "for an hour"),
    ],
)
def test_a_node_that_is_not_like_the_others_is_named(
    change: dict[str, Any], name: str, severity: str, seen: str
) -> None:
    found = worst(findings(GOOD, replace(GOOD, node="10.0.0.2", **change)), name)
    assert found.severity == severity
    assert seen in found.seen
    assert bool(found.remedy) == (severity != "ok")


@pytest.mark.parametrize(
    ("redis", "name", "severity", "seen"),
    [
        (RedisFacts(fault="no answer within 5 s"), "redis", "error", "no answer"),
        (RedisFacts(version="5.0.1"), "redis", "error", "5.0.1"),
        (RedisFacts(version="7.2.4", last_write_ok=False, persistent=True), "redis persistence", "error", "failed"),
        (RedisFacts(version="7.2.4", clock_offset_s=-30.0), "clock of redis", "error", "-30.00 s"),
        (RedisFacts(), "redis settings", "skipped", "INFO"),
        (RedisFacts(version="7.2.4", policy="volatile-lru"), "redis policy", "ok", "volatile-lru"),
    ],
)
def test_a_redis_is_judged(redis: RedisFacts, name: str, severity: str, seen: str) -> None:
    found = worst(findings(redis=redis), name)
    assert found.severity == severity
    assert seen in found.seen


SECOND = replace(GOOD, node="10.0.0.2")
RUNS = RunningFacts(
    states={"manta": "RUNNING"}, proxies={"10.0.0.1": "HEALTHY", "10.0.0.2": "UNHEALTHY"}, redis_users=["10.0.0.1"]
)
IDLE = RunningFacts()


@pytest.mark.parametrize(
    ("change", "running", "severity", "seen", "remedy"),
    [
        ({"listening": True, "healthy": True}, RUNS, "ok", "a service answers", ""),
        ({"listening": True}, RUNS, "error", "does not answer that the service is ready", "logs/serve on 10.0.0.2"),
        ({"listening": True}, None, "error", "does not answer", "logs/serve on 10.0.0.2"),
        ({"listening": True}, replace(RUNS, proxies={}), "error", "no proxy of Serve", "Free the port on 10.0.0.2"),
        ({"listening": True}, IDLE, "error", "no proxy of Serve", "Free the port on 10.0.0.2"),
        ({"listening": False}, RUNS, "error", "(UNHEALTHY), and nothing listens", "logs/serve on 10.0.0.2"),
        ({"listening": False}, replace(RUNS, proxies={}), "ok", "no replica runs there", ""),
        ({"listening": False}, IDLE, "ok", "no replica runs there", ""),
        ({"listening": False}, None, "skipped", "--dashboard", ""),
        ({"listening": False}, RunningFacts(fault="Ray's dashboard answers 401"), "skipped", "--dashboard", ""),
    ],
)
def test_the_port_of_each_node_is_judged_by_the_proxies_of_serve(
    change: dict[str, Any], running: RunningFacts | None, severity: str, seen: str, remedy: str
) -> None:
    found = findings(GOOD, replace(SECOND, **change), running=running)
    finding = worst(found, "port 8000 of 10.0.0.2")
    assert finding.severity == severity
    assert seen in finding.seen
    assert remedy in finding.remedy
    assert not [each for each in found if each.name.startswith("port 8000 of 10.0.0.1")]


@pytest.mark.parametrize(
    ("fault", "running", "severity", "seen"),
    [
        ("", None, "ok", "answers"),
        ("no answer within 5 s", None, "error", "no answer within 5 s"),
        ("no answer within 5 s", replace(RUNS, redis_users=["10.0.0.2"]), "error", "no answer within 5 s"),
        ("no answer within 5 s", RUNS, "warning", "nothing that needs it runs there now"),
    ],
)
def test_a_node_from_which_redis_cannot_be_asked_is_named(
    fault: str, running: RunningFacts | None, severity: str, seen: str
) -> None:
    found = findings(replace(GOOD, redis_fault=""), replace(SECOND, redis_fault=fault), running=running)
    finding = worst(found, "redis from 10.0.0.2")
    assert finding.severity == severity
    assert seen in finding.seen
    assert ("10.0.0.2" in finding.remedy) == bool(fault)
    assert worst(found, "redis from 10.0.0.1").severity == Severity.OK


def test_a_model_over_several_gpus_needs_shared_memory() -> None:
    small = replace(GOOD, shm_bytes=512 * 1024**2)
    assert worst(findings(small), "/dev/shm").severity is Severity.OK
    found = worst(findings(small, config=replace(CONFIG, parallel=True)), "/dev/shm")
    assert found.severity is Severity.ERROR


def test_an_optional_model_that_is_missing_is_a_warning() -> None:
    missing = replace(GOOD, models={"models/fast": "does not exist"})
    found = worst(findings(missing, config=replace(CONFIG, models={"models/fast": True})), "model")
    assert found.severity is Severity.WARNING


def test_too_few_gpus_and_a_broken_application_are_errors() -> None:
    assert worst(findings(config=replace(CONFIG, gpus=4)), "GPUs").seen == "2 GPUs for replicas that need 4"
    running = RunningFacts(states={"manta": "UNHEALTHY"}, arguments={"manta": {}})
    assert worst(findings(running=running), "application manta").severity is Severity.ERROR


def test_an_application_that_is_not_deployed_is_an_error() -> None:
    assert worst(findings(running=RunningFacts()), "config of manta").severity is Severity.ERROR


@pytest.mark.parametrize(
    ("wanted", "running", "paths"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": {"b": [1, 2]}}, {"a": {"b": [1, 3]}}, ["a.b[1]"]),
        ({"a": [1]}, {"a": [1, 2]}, ["a"]),
        ({"a": None}, {}, ["a"]),
        ({}, {"tiers": 1}, ["tiers"]),
        ({}, {"state": {"url_file": "/tmp/x", "journal": "/tmp/y"}}, []),  # as `make serve` adds them
        ({}, {"state": {"url": "redis://:secret@h"}}, ["state.url"]),
        ({"state": {"url_file": "/etc/a"}}, {"state": {"url_file": "/etc/b"}}, ["state.url_file"]),
        ({"a": 1}, {"a": "1"}, ["a"]),
        ({"a": "text"}, {"a": "other"}, ["a"]),
    ],
)
def test_drift_is_said_by_its_places(wanted: object, running: object, paths: list[str]) -> None:
    assert drift(wanted, running) == paths
