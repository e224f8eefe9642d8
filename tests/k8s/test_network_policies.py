"""What may connect to what is the table of docs/operations.md, and nothing beyond it."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from tests.k8s.overlays import OVERLAYS, ROOT, objects

Object = dict[str, Any]

NAMESPACE = "kubernetes.io/metadata.name"
RAY = {"app.kubernetes.io/part-of": "manta", "app.kubernetes.io/component": "ray"}
NAMES: dict[frozenset[tuple[str, str]], str] = {
    frozenset(labels.items()): name
    for name, labels in {
        "every pod": {},
        "Ray node": RAY,
        "Ray head": {**RAY, "manta/group": "head"},
        "Redis": {"app.kubernetes.io/name": "redis", "app.kubernetes.io/part-of": "manta"},
        "model job": {"app.kubernetes.io/name": "manta-models"},
        "Gateway manta-edge": {"gateway.networking.k8s.io/gateway-name": "manta-edge"},
        "Gateway manta-gateway": {"gateway.networking.k8s.io/gateway-name": "manta-gateway"},
        "KubeRay operator": {NAMESPACE: "kuberay-system", "app.kubernetes.io/name": "kuberay-operator"},
        "Prometheus": {NAMESPACE: "monitoring", "app.kubernetes.io/name": "prometheus"},
        "DNS": {NAMESPACE: "kube-system", "k8s-app": "kube-dns"},
        "istiod": {NAMESPACE: "istio-system", "app": "istiod"},
        "Ingress controller": {NAMESPACE: "ingress-nginx", "app.kubernetes.io/name": "ingress-nginx"},
    }.items()
}
OURS = {"Ray node", "Ray head", "Redis", "Gateway manta-edge", "Gateway manta-gateway"}


class Flow(NamedTuple):
    """A connection that is allowed: who opens it, to whom, to which port (``all``, or ``53/UDP`` for UDP)."""

    source: str
    target: str
    port: str


def name_of(peer: Object) -> str:
    """The name of a peer or of a policy's pods. Raises KeyError for a selector that has none here."""
    selectors = [peer.get("podSelector", {}), peer.get("namespaceSelector", {})]
    assert peer.keys() <= {"podSelector", "namespaceSelector"}
    assert all(selector.keys() <= {"matchLabels"} for selector in selectors)
    assert "namespaceSelector" not in peer or peer["namespaceSelector"]["matchLabels"], "every namespace"
    return NAMES[frozenset(pair for selector in selectors for pair in selector.get("matchLabels", {}).items())]


def flows(overlay: str, direction: str) -> set[Flow]:
    """What the policies of an overlay allow, in one direction: ``ingress`` or ``egress``."""
    found = set()
    for policy in objects(overlay, "NetworkPolicy"):
        here = name_of({"podSelector": policy["spec"]["podSelector"]})
        for rule in policy["spec"].get(direction, []):
            peers = rule.get("from" if direction == "ingress" else "to")
            there = ["anywhere"] if peers is None else [name_of(peer) for peer in peers]
            ports = [
                str(port["port"]) + ("" if port["protocol"] == "TCP" else f"/{port['protocol']}")
                for port in rule.get("ports", [])
            ]
            for name in there:
                for port in ports or ["all"]:
                    found.add(Flow(name, here, port) if direction == "ingress" else Flow(here, name, port))
    return found


def documented() -> set[Flow]:
    """The table of docs/operations.md."""
    section = (ROOT / "docs" / "operations.md").read_text().partition("### What may connect to what")[2]
    rows = [line for line in section.partition("\n#")[0].splitlines() if line.startswith("| ")][2:]
    found = set()
    for row in rows:
        source, target, ports, *_ = (cell.strip().replace("`", "") for cell in row.strip("|").split("|"))
        found |= {Flow(source, target, port.strip()) for port in ports.split(",")}
    return found


def test_the_overlays_allow_what_is_documented_and_no_more() -> None:
    allowed = {flow for overlay in OVERLAYS for way in ("ingress", "egress") for flow in flows(overlay, way)}
    assert allowed == documented()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_everything_else_is_denied_in_both_directions(overlay: str) -> None:
    (deny,) = [each for each in objects(overlay, "NetworkPolicy") if each["metadata"]["name"] == "default-deny"]
    assert deny["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_connection_between_our_pods_is_allowed_at_both_ends(overlay: str) -> None:
    inward = {flow for flow in flows(overlay, "ingress") if {flow.source, flow.target} <= OURS}
    outward = {flow for flow in flows(overlay, "egress") if {flow.source, flow.target} <= OURS}
    assert inward == outward


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_policy_with_rules_of_a_direction_names_it(overlay: str) -> None:
    for policy in objects(overlay, "NetworkPolicy"):
        spec = policy["spec"]
        for direction in ("ingress", "egress"):
            assert (direction in spec) <= (direction.title() in spec["policyTypes"]), policy["metadata"]["name"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_dashboard_which_runs_code_is_open_to_the_operator_alone(overlay: str) -> None:
    assert {flow.source for flow in flows(overlay, "ingress") if flow.port == "8265"} == {"KubeRay operator"}
    assert not [flow for flow in flows(overlay, "ingress") if flow.port in ("10001", "8404")]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_monitored_port_is_a_port_of_a_container_that_prometheus_may_reach(overlay: str) -> None:
    head = objects(overlay, "RayService")[0]["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]
    numbers = {port["name"]: str(port["containerPort"]) for port in head["containers"][0]["ports"]}
    (monitor,) = objects(overlay, "PodMonitor")
    read = {numbers[each["port"]] for each in monitor["spec"]["podMetricsEndpoints"]}
    assert read == {flow.port for flow in flows(overlay, "ingress") if flow.source == "Prometheus"}
