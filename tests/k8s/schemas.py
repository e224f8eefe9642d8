"""Schemas of the objects: Kubernetes' own, that of the RayService CRD, and of what the overlays use of other CRDs."""

from __future__ import annotations

import gzip
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.k8s.overlays import LOADER

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "k8s"
CRD = DATA / "ray.io_rayservices.yaml.gz"
VERSIONS = ("1.34", "1.35", "1.36", "1.37")
"""The versions of Kubernetes for which every object is checked."""

Schema = dict[str, Any]

CORE_GROUPS = frozenset({"v1", "apps/v1", "batch/v1", "policy/v1", "networking.k8s.io/v1", "scheduling.k8s.io/v1"})


def check_core(each: dict[str, Any], version: str) -> None:
    """Raises the validator's error for an object of Kubernetes' own kinds that is wrong or has unknown keys. Skips the
    test without the package."""
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    kubernetes_validate.validate(each, version, strict=True)


@cache
def ray_service_validator() -> jsonschema.protocols.Validator:
    """The validator of a RayService by its CRD, which refuses unknown keys. Skips the test without the CRD."""
    if not CRD.exists():
        pytest.skip(f"the CRD of RayService is not at {CRD}")
    with gzip.open(CRD, "rt", encoding="utf-8") as file:
        definition = yaml.load(file, Loader=LOADER)
    (version,) = [each for each in definition["spec"]["versions"] if each["name"] == "v1"]
    schema = strict(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    return jsonschema.Draft202012Validator(schema)


def strict(schema: Schema) -> Schema:
    """The JSON Schema of a CRD's schema: unknown keys are refused, and quantities may be numbers or strings."""
    made = {name: value for name, value in schema.items() if not name.startswith("x-kubernetes") and name != "format"}
    if schema.get("x-kubernetes-int-or-string"):
        made.pop("type", None)
        made["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if "properties" in schema:
        made["properties"] = {name: strict(each) for name, each in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            made.setdefault("additionalProperties", False)
    if isinstance(schema.get("items"), dict):
        made["items"] = strict(schema["items"])
    if isinstance(schema.get("additionalProperties"), dict):
        made["additionalProperties"] = strict(schema["additionalProperties"])
    return made


def _closed(required: dict[str, Schema], **optional: Schema) -> Schema:
    """An object with these keys and no others."""
    return {
        "type": "object",
        "properties": required | optional,
        "required": list(required),
        "additionalProperties": False,
    }


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items, "minItems": 1}


_STRING: Schema = {"type": "string"}
_NAME: Schema = {"type": "string", "pattern": r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"}
_PORT: Schema = {"type": "integer", "minimum": 1, "maximum": 65535}
_LABELS: Schema = {"type": "object", "additionalProperties": _STRING}
_DURATION: Schema = {"type": "string", "pattern": r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"}
_METADATA = _closed({"name": _NAME, "namespace": _NAME}, labels=_LABELS, annotations=_LABELS)


def _object(version: str, kind: str, spec: Schema) -> Schema:
    return _closed({"apiVersion": {"const": version}, "kind": {"const": kind}, "metadata": _METADATA, "spec": spec})


_RECORDING = _closed({"record": _STRING, "expr": _STRING})
_ALERT = _closed({"alert": _STRING, "expr": _STRING, "for": _DURATION, "labels": _LABELS, "annotations": _LABELS})

_GATEWAY = "gateway.networking.k8s.io/v1"
OTHER_CRDS: dict[str, Schema] = {
    "Gateway": _object(
        _GATEWAY,
        "Gateway",
        _closed(
            {
                "gatewayClassName": _NAME,
                "listeners": _list(
                    _closed(
                        {"name": _NAME, "protocol": {"enum": ["HTTP", "HTTPS"]}, "port": _PORT},
                        hostname=_NAME,
                        tls=_closed(
                            {
                                "mode": {"const": "Terminate"},
                                "certificateRefs": _list(
                                    _closed({"name": _NAME}, group={"const": ""}, kind={"const": "Secret"})
                                ),
                            }
                        ),
                        allowedRoutes=_closed({"namespaces": _closed({"from": {"enum": ["All", "Same", "Selector"]}})}),
                    )
                ),
            },
            infrastructure=_closed(
                {"parametersRef": _closed({"group": {"const": ""}, "kind": {"const": "ConfigMap"}, "name": _NAME})}
            ),
        ),
    ),
    "HTTPRoute": _object(
        _GATEWAY,
        "HTTPRoute",
        _closed(
            {
                "parentRefs": _list(_closed({"name": _NAME}, group=_STRING, kind=_STRING, sectionName=_NAME)),
                "hostnames": _list(_NAME),
                "rules": _list(
                    _closed(
                        {
                            "backendRefs": _list(
                                _closed(
                                    {"name": _NAME, "port": _PORT},
                                    group={"const": ""},
                                    kind={"const": "Service"},
                                    weight={"type": "integer", "minimum": 0},
                                )
                            )
                        },
                        matches=_list(
                            _closed({"path": _closed({"type": {"enum": ["Exact", "PathPrefix"]}, "value": _STRING})})
                        ),
                        timeouts=_closed({}, request=_DURATION, backendRequest=_DURATION),
                    )
                ),
            }
        ),
    ),
    "PodMonitor": _object(
        "monitoring.coreos.com/v1",
        "PodMonitor",
        _closed(
            {
                "selector": _closed({"matchLabels": _LABELS}),
                "podMetricsEndpoints": _list(_closed({"port": _NAME}, interval=_DURATION)),
            },
            podTargetLabels=_list(_STRING),
        ),
    ),
    "PrometheusRule": _object(
        "monitoring.coreos.com/v1",
        "PrometheusRule",
        _closed(
            {
                "groups": _list(
                    _closed({"name": _STRING, "interval": _DURATION, "rules": _list({"anyOf": [_RECORDING, _ALERT]})})
                )
            }
        ),
    ),
}
"""What the overlays use of CRDs of others, written after their references. They have the used keys alone, so they are
stricter than the CRDs."""
