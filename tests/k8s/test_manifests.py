"""Both overlays build, and every object of them is one that Kubernetes and KubeRay's operator accept."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest
import yaml

from tests.k8s.operator_rules import violations
from tests.k8s.overlays import OVERLAYS, as_pod, built, objects, pod_templates, ray_groups, ray_service
from tests.k8s.schemas import CORE_GROUPS, OTHER_CRDS, VERSIONS, check_core, ray_service_validator

Object = dict[str, Any]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_has_a_schema_here(overlay: str) -> None:
    unknown = {
        f"{each['apiVersion']} {each['kind']}"
        for each in built(overlay)
        if each["apiVersion"] not in CORE_GROUPS and each["kind"] not in {*OTHER_CRDS, "RayService"}
    }
    assert not unknown


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_objects_of_kubernetes_are_valid_without_unknown_keys(overlay: str, version: str) -> None:
    for each in built(overlay):
        if each["apiVersion"] in CORE_GROUPS:
            check_core(each, version)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pod_templates_of_the_ray_service_are_valid_pods(overlay: str, version: str) -> None:
    for template in pod_templates(overlay).values():
        check_core(as_pod(template), version)


def test_the_schemas_of_kubernetes_refuse_an_unknown_key() -> None:
    (budget, *_) = objects("prod", "PodDisruptionBudget")
    check_core(budget, VERSIONS[0])
    budget["spec"]["minAvailabel"] = 1
    with pytest.raises(jsonschema.ValidationError, match="minAvailabel"):
        check_core(budget, VERSIONS[0])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_ray_service_is_valid_by_its_crd(overlay: str) -> None:
    errors = [
        f"{error.json_path}: {error.message}" for error in ray_service_validator().iter_errors(ray_service(overlay))
    ]
    assert not errors


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        (["rayClusterConfig", "enableInTreeAutoscalling"], True, "enableInTreeAutoscalling"),
        (["rayClusterConfig", "autoscalerOptions", "version"], "v3", "v3"),
        (["rayClusterConfig", "authOptions", "mode"], "tokens", "tokens"),
        (["serveConfigV2"], {"applications": []}, "not of type 'string'"),
        (["upgradeStrategy", "clusterUpgradeOptions", "stepSize"], 10, "stepSize"),
    ],
)
def test_the_crd_refuses_what_is_misspelt(path: list[str], value: object, complaint: str) -> None:
    service = ray_service("prod")
    target = service["spec"]
    for name in path[:-1]:
        target = target[name]
    target[path[-1]] = value
    assert complaint in " ".join(error.message for error in ray_service_validator().iter_errors(service))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_objects_of_other_crds_use_known_keys(overlay: str) -> None:
    for each in built(overlay):
        if each["kind"] in OTHER_CRDS:
            jsonschema.validate(each, OTHER_CRDS[each["kind"]])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_operator_accepts_the_ray_service(overlay: str) -> None:
    assert violations(ray_service(overlay)) == []


def _head(service: Object) -> Object:
    head: Object = service["spec"]["rayClusterConfig"]["headGroupSpec"]
    return head


def _options(service: Object) -> Object:
    options: Object = service["spec"]["upgradeStrategy"]["clusterUpgradeOptions"]
    return options


def _ray(service: Object) -> Object:
    cluster: Object = service["spec"]["rayClusterConfig"]
    return cluster


def _worker(service: Object) -> Object:
    worker: Object = _ray(service)["workerGroupSpecs"][1]
    return worker


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda s: s["metadata"].update(name="m" * 48), "no DNS label"),
        (lambda s: s["metadata"].update(name="Manta"), "no DNS label"),
        (lambda s: _head(s).update(headService={"metadata": {"name": "mine"}}), "headService.metadata.name"),
        (lambda s: _ray(s).update(enableInTreeAutoscaling=False), "needs the autoscaler"),
        (lambda s: _options(s).update(stepSizePercent=60, maxSurgePercent=50), "stepSizePercent <= maxSurgePercent"),
        (lambda s: _options(s).update(maxSurgePercent=101), "<= 100"),
        (lambda s: _options(s).update(intervalSeconds=0), "intervalSeconds"),
        (lambda s: _options(s).update(gatewayClassName=""), "gatewayClassName"),
        (lambda s: s["spec"]["upgradeStrategy"].update(type="Rolling"), "no upgrade strategy Rolling"),
        (lambda s: _ray(s).update(rayVersion="2.51.1"), "2.52"),
        (lambda s: _ray(s)["authOptions"].update(enableK8sTokenAuth=True), "not supported for a RayService"),
        (lambda s: _worker(s)["template"]["spec"].update(restartPolicy="Always"), "restartPolicy Never"),
        (lambda s: _worker(s)["rayStartParams"].update({"num-gpus": "1"}), "both in rayStartParams"),
        (lambda s: _worker(s)["rayStartParams"].update(labels="a=b"), "labels in rayStartParams"),
        (lambda s: _worker(s).update(minReplicas=9), "minReplicas <= replicas"),
        (lambda s: _worker(s).pop("maxReplicas"), "lacks minReplicas or maxReplicas"),
        (lambda s: _worker(s).update(groupName="cpu"), "same name"),
        (lambda s: s["metadata"].update(annotations={"ray.io/ft-enabled": "true"}), "both in annotations"),
        (lambda s: _head(s)["rayStartParams"].update({"redis-password": "x"}), "redis-password"),
        (
            lambda s: _head(s)["template"]["spec"]["containers"][0].update(env=[{"name": "RAY_REDIS_ADDRESS"}]),
            "RAY_REDIS_ADDRESS",
        ),
        (lambda s: _ray(s)["gcsFaultToleranceOptions"].update(storage={"size": "1Gi"}), "rocksdb"),
        (lambda s: s["spec"].update(rayClusterDeletionDelaySeconds=-1), "rayClusterDeletionDelaySeconds"),
        (lambda s: s["spec"]["upgradeStrategy"].pop("clusterUpgradeOptions"), "stepSizePercent"),
        (lambda s: _ray(s)["autoscalerOptions"].update(idleTimeoutSeconds=-1), "idleTimeoutSeconds is negative"),
        (lambda s: _worker(s).update(suspend=True), "is suspended"),
        (
            lambda s: _head(s)["template"]["spec"]["containers"][0].update(
                env=[{"name": "RAY_enable_autoscaler_v2", "value": "1"}]
            ),
            "RAY_enable_autoscaler_v2",
        ),
        (
            lambda s: _ray(s)["autoscalerOptions"].update(
                env=[{"name": "KUBERAY_GEN_AUTOSCALER_START_CMD", "value": "x"}]
            ),
            "KUBERAY_GEN_AUTOSCALER_START_CMD",
        ),
        (lambda s: _ray(s).update(networkPolicy={"mode": "DenyAll"}), "feature gate"),
        (lambda s: _ray(s).update(upgradeStrategy={"type": "Recreate"}), "RayCluster of its own"),
        (lambda s: _head(s)["template"]["spec"]["containers"][0].update(ports=[]), "no port named serve"),
    ],
)
def test_a_rule_of_the_operator_that_is_broken_is_named(change: Callable[[Object], Any], complaint: str) -> None:
    service = copy.deepcopy(ray_service("prod"))
    change(service)
    assert any(complaint in each for each in violations(service)), violations(service)


def test_upgrades_of_production_are_incremental_and_those_of_dev_need_no_gateway() -> None:
    assert ray_service("prod")["spec"]["upgradeStrategy"]["type"] == "NewClusterWithIncrementalUpgrade"
    assert ray_service("dev")["spec"]["upgradeStrategy"]["type"] == "NewCluster"
    assert not objects("dev", "Gateway")


def test_the_operator_takes_the_inner_gateway_for_its_own() -> None:
    # It looks for NAME-gateway and compares class, and name, protocol and port of the only listener.
    (inner,) = [each for each in objects("prod", "Gateway") if each["metadata"]["name"] == "manta-gateway"]
    options = ray_service("prod")["spec"]["upgradeStrategy"]["clusterUpgradeOptions"]
    assert inner["spec"]["gatewayClassName"] == options["gatewayClassName"]
    (listener,) = inner["spec"]["listeners"]
    assert (listener["name"], listener["protocol"], listener["port"]) == ("http", "HTTP", 80)
    assert inner["metadata"]["annotations"]["networking.istio.io/service-type"] == "ClusterIP"


def test_with_incremental_upgrades_nothing_goes_by_the_service_that_loses_its_pods_meanwhile() -> None:
    # The stable service may select the old cluster for minutes after it has gone; the Gateway's route does not.
    assert "manta-serve-svc" not in yaml.safe_dump(built("prod"))
    assert "manta-serve-svc" in yaml.safe_dump(objects("dev", "Ingress"))


def test_a_gateway_outlives_the_drain_of_a_node() -> None:
    gateways = objects("prod", "Gateway")
    references = [each["spec"]["infrastructure"]["parametersRef"]["name"] for each in gateways]
    (options,) = [each for each in objects("prod", "ConfigMap") if each["metadata"]["name"] in references]
    assert references == [options["metadata"]["name"]] * 2
    # Istio lays these over objects of its own, which name the pods.
    scaler, budget = (
        yaml.safe_load(options["data"][key]) for key in ("horizontalPodAutoscaler", "podDisruptionBudget")
    )
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "manta-edge-istio"}
    metadata = {"name": "manta-edge-istio"}
    check_core(
        {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": metadata,
            "spec": {"scaleTargetRef": target, **scaler["spec"]},
        },
        VERSIONS[0],
    )
    check_core({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": metadata, **budget}, VERSIONS[0])
    assert budget["spec"]["minAvailable"] < scaler["spec"]["minReplicas"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_head_does_no_work_and_gets_no_requests(overlay: str) -> None:
    service = ray_service(overlay)
    assert _head(service)["rayStartParams"]["num-cpus"] == "0"
    assert service["spec"]["excludeHeadPodFromServeSvc"] is True


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_two_clusters_do_not_share_the_state_of_ray(overlay: str) -> None:
    options = _ray(ray_service(overlay))["gcsFaultToleranceOptions"]
    assert "externalStorageNamespace" not in options  # the operator's default is the identity of the cluster


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_of_each_group_can_be_told_apart_by_their_labels(overlay: str) -> None:
    for name, group in ray_groups(ray_service(overlay)):
        labels = group["template"]["metadata"]["labels"]
        # Not app.kubernetes.io/name: the operator's services of the head select by the one that it sets itself.
        assert labels == {
            "app.kubernetes.io/part-of": "manta",
            "app.kubernetes.io/component": "ray",
            "manta/group": name,
        }
