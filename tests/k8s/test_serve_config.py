"""The Serve config within a RayService is the one that deployments/*.yaml has, and what it asks for is there."""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from ray.autoscaler._private.kuberay.autoscaling_config import _get_ray_resources_from_group_spec
from ray.serve.schema import ServeApplicationSchema, ServeDeploySchema

from cluster.local.serve_config_loader import ConfigFileError
from cluster.model_service.config import ReplicaSettings
from k8s.serve_config import IMAGE_ROOT, MIN_CPUS, ROOT, SOURCES, clustered, digest, manifests
from tests.k8s.overlays import OVERLAYS, manta_config, objects, ray_groups, ray_service, serve_config

Object = dict[str, Any]


def source(overlay: str) -> Object:
    """The file from which an overlay's Serve config is written."""
    config: Object = yaml.safe_load((ROOT / SOURCES[overlay]).read_text())
    return config


def test_the_written_files_are_those_that_make_k8s_would_write_now() -> None:
    stale = [str(path.relative_to(ROOT)) for path, text in manifests().items() if path.read_text() != text]
    assert not stale, "run `make k8s`"


def test_drift_is_noticed(tmp_path: Path) -> None:
    for path in SOURCES.values():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text((ROOT / path).read_text().replace("replicas: 2", "replicas: 3"))
    changed = {path.relative_to(tmp_path): text for path, text in manifests(tmp_path).items()}
    assert "replicas: 3" in changed[Path("k8s/overlays/prod/serve-config.yaml")]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_written_config_passes_our_schema_and_serves(overlay: str) -> None:
    config = serve_config(overlay)
    manta_config(overlay)
    ServeDeploySchema.model_validate(config)
    # Serve ignores unknown keys, here as elsewhere.
    assert config.keys() <= ServeDeploySchema.model_fields.keys()
    for application in config["applications"]:
        assert application.keys() <= ServeApplicationSchema.model_fields.keys()


def test_production_is_taken_as_it_is_but_for_paths_in_the_image() -> None:
    adapted, original = serve_config("prod"), source("prod")
    text = yaml.safe_dump(adapted).replace(f"{IMAGE_ROOT}/", "")
    assert yaml.safe_load(text) == original


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_deployment_of_the_design_is_there(overlay: str) -> None:
    config = manta_config(overlay)
    assert config.state.shared
    assert config.safety.classifier is not None
    assert config.safety.policies is not None
    assert config.embedder is not None
    assert config.cache is not None
    assert config.router.cache.enabled


def test_production_refuses_what_it_cannot_inspect_and_has_two_of_what_it_needs() -> None:
    config = manta_config("prod")
    assert config.safety.policies is not None
    assert config.safety.policies.default.when_unavailable == "refuse"
    assert config.safety.classifier is not None
    assert (config.ingress.replicas, config.safety.classifier.replicas) == (2, 2)
    assert config.ingress.max_replicas_per_node == 1


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_api_key_is_in_plain_text(overlay: str) -> None:
    for key in manta_config(overlay).router.keys:
        assert key.key.startswith("sha256:")


def test_a_key_and_its_digest_open_the_same() -> None:
    assert digest("sk-1") == f"sha256:{hashlib.sha256(b'sk-1').hexdigest()}"
    assert digest(digest("sk-1")) == digest("sk-1")


def test_what_reserves_no_core_is_kept_off_the_head() -> None:
    arguments = serve_config("dev")["applications"][0]["args"]
    assert arguments["ingress"]["num_cpus"] == arguments["tiers"][0]["num_cpus"] == MIN_CPUS


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"import_path": "other.app:build"}, "its import_path is not cluster.app:build"),
        ({"runtime_env": {"pip": ["x"]}}, "unknown keys: runtime_env"),
        ({"argss": {}}, "unknown keys: argss"),
    ],
)
def test_an_application_that_serve_would_take_otherwise_is_refused(change: Object, complaint: str) -> None:
    config = {"http_options": {}, **source("prod")}
    config["applications"] = [{**config["applications"][0], **change}]
    with pytest.raises(ConfigFileError, match=complaint):
        clustered(config)


def test_a_wrong_setting_is_refused_before_it_reaches_a_cluster() -> None:
    config = copy.deepcopy(source("prod"))
    config["applications"][0]["args"]["tiers"][0]["replica"] = 2
    with pytest.raises(ValidationError, match="replica"):
        clustered(config)


def demands(overlay: str) -> list[tuple[str, dict[str, float]]]:
    """What each replica of an overlay asks of Ray, with the name of its deployment; of scaled tiers the fewest."""
    config = manta_config(overlay)
    found = [("Router", {"CPU": config.ingress.num_cpus})] * config.ingress.replicas
    services: dict[str, ReplicaSettings | None] = {
        "SafetyClassifier": config.safety.classifier,
        "Embedder": config.embedder,
        "SemanticCache": config.cache,
    }
    if config.small_models is not None:
        services = {"SmallModels": config.small_models}
    for name, service in services.items():
        assert service is not None
        found += [(name, {"CPU": service.num_cpus})] * service.replicas
    for tier in config.tiers:
        asked = {"CPU": tier.num_cpus, "GPU": tier.num_gpus, **tier.resources}
        scaled = {} if config.autoscaling is None else config.autoscaling.tiers
        least = scaled[tier.name].min if tier.name in scaled else tier.replicas
        found += [(tier.name, {name: amount for name, amount in asked.items() if amount})] * least
    return found


def fits(asked: dict[str, float], free: dict[str, float]) -> bool:
    """Whether a node with ``free`` resources has what a replica asks for."""
    return all(free.get(name, 0) >= amount - 1e-9 for name, amount in asked.items())


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_smallest_cluster_has_room_for_every_replica(overlay: str) -> None:
    nodes: list[tuple[str, dict[str, float]]] = []
    for name, group in ray_groups(ray_service(overlay)):
        # Ray's own reading of the group, by which its autoscaler decides.
        offered = {
            key: float(value) for key, value in _get_ray_resources_from_group_spec(group, name == "head").items()
        }
        nodes += [(name, dict(offered)) for _ in range(group.get("minReplicas", 1))]
    placed: dict[str, set[str]] = {}
    # Those that need most first; a replica with a resource of a group can only go there.
    for name, asked in sorted(demands(overlay), key=lambda each: sorted(each[1].items()), reverse=True):
        node = next((each for each in nodes if fits(asked, each[1])), None)
        assert node is not None, f"{name} asks for {asked}, and the nodes have {nodes} left"
        placed.setdefault(name, set()).add(node[0])
        for resource, amount in asked.items():
            node[1][resource] -= amount
    assert "head" not in set().union(*placed.values())
    if overlay == "prod":
        groups = {name: {f"gpu-{name}"} for name in ("fast", "balanced", "frontier")}
        assert placed == groups | {
            name: {"cpu"} for name in ("Router", "SafetyClassifier", "Embedder", "SemanticCache")
        }
        left = [free for name, free in nodes if name.startswith("gpu-")]
        assert all(not fits({"CPU": 1}, free) for free in left), "what needs no GPU could take a place beside one"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nothing_outside_cuts_a_stream_short(overlay: str) -> None:
    config = manta_config(overlay)
    longest = config.router.request_timeout_s
    for route in objects(overlay, "HTTPRoute"):
        for rule in route["spec"]["rules"]:
            assert rule["timeouts"] == {"request": "0s", "backendRequest": "0s"}  # 0: no limit
    for ingress in objects(overlay, "Ingress"):
        annotations = ingress["metadata"]["annotations"]
        assert annotations["nginx.ingress.kubernetes.io/proxy-buffering"] == "off"
        assert float(annotations["nginx.ingress.kubernetes.io/proxy-read-timeout"]) > longest
    assert "request_timeout_s" not in serve_config(overlay)["http_options"]
    drains = [config.ingress.drain_timeout_s, *(tier.drain_timeout_s for tier in config.tiers)]
    for name, group in ray_groups(ray_service(overlay)):
        if name != "head":
            spec = group["template"]["spec"]
            before = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
            assert spec["terminationGracePeriodSeconds"] >= before + max(drains)


def test_the_old_cluster_stays_until_its_longest_answer_has_ended() -> None:
    delay = ray_service("prod")["spec"]["rayClusterDeletionDelaySeconds"]
    assert delay > manta_config("prod").router.request_timeout_s


def test_models_of_production_are_fetched_by_the_job_and_awaited_by_those_that_read_them() -> None:
    models = [tier.engine.model.removeprefix("/models/") for tier in manta_config("prod").tiers]
    (job,) = objects("prod", "Job")
    waiting = []
    for name, group in ray_groups(ray_service("prod")):
        spec = group["template"]["spec"]
        mounts = {each["mountPath"]: each for each in spec["containers"][0]["volumeMounts"]}
        assert ("/models" in mounts) == name.startswith("gpu-")
        if "/models" in mounts:
            assert mounts["/models"]["readOnly"]
            waiting += spec["initContainers"]
    for container in [*job["spec"]["template"]["spec"]["containers"], *waiting]:
        (script,) = container["args"]
        assert script.partition("in ")[2].partition(";")[0].split() == models


def test_the_quota_has_room_for_an_upgrade() -> None:
    (quota,) = objects("prod", "ResourceQuota")
    gpus = sum(group["minReplicas"] for name, group in ray_groups(ray_service("prod")) if name.startswith("gpu-"))
    assert int(quota["spec"]["hard"]["requests.nvidia.com/gpu"]) >= 2 * gpus


def test_the_node_groups_can_grow_to_the_most_replicas_of_each_tier() -> None:
    config = manta_config("prod")
    assert config.autoscaling is not None
    groups = {name: group["maxReplicas"] for name, group in ray_groups(ray_service("prod")) if name != "head"}
    for tier in config.tiers:
        (group,) = tier.resources
        assert groups[group] == config.autoscaling.tiers[tier.name].max * tier.num_gpus
