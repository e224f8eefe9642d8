"""``GOOD``: the facts of a node with which nothing is wrong."""

from __future__ import annotations

from cluster.doctor.facts import NodeFacts
from cluster.doctor.machine_checks import (
    CLIENT_S,
    EXPECTED,
    FEW_FILES,
    HAPROXY,
    HARD_STOP_S,
    SET,
)

GIB = 1024**3
VARIABLES = {name: value for name, (value, _) in EXPECTED.items()} | {
    HAPROXY: "/opt/haproxy",
    CLIENT_S: "60",
    HARD_STOP_S: "630",
    "RAY_AUTH_TOKEN": SET,
}


GOOD = NodeFacts(
    "10.0.0.1",
    "3.11.9",
    "2.60.0",
    {"ray": "2.60.0"},
    VARIABLES,
    FEW_FILES,
    2 * GIB,
    {"/tmp": 100 * GIB},
    {"models/fast": ""},
    [("H100", "570.1"), ("H100", "570.1")],
)
