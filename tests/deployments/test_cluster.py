"""The config and the environment of a Ray cluster without Kubernetes are whole."""

from __future__ import annotations

import subprocess
from pathlib import Path

import yaml
from ray.serve.schema import ServeApplicationSchema, ServeDeploySchema

from cluster.config import MantaConfig
from cluster.doctor.machine_checks import CLIENT_S, EXPECTED, HAPROXY, HARD_STOP_S

ROOT = Path(__file__).resolve().parents[2]


def variables(file: Path, *, source: bool) -> dict[str, str]:
    """The variables of an environment file, as bash reads it or as it stands."""
    if not source:
        lines = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
        return dict(line.split("=", 1) for line in lines)
    command = ["env", "-i", "PATH=/usr/bin:/bin", "bash", "-c", f"set -a; . {file}; set +a; env"]
    found = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return dict(line.split("=", 1) for line in found.splitlines() if "=" in line)


def test_the_config_of_a_cluster_passes_our_schema_and_serves() -> None:
    config = yaml.safe_load((ROOT / "deployments" / "cluster.yaml").read_text())
    ServeDeploySchema.model_validate(config)
    assert config.keys() <= ServeDeploySchema.model_fields.keys()
    (application,) = config["applications"]
    assert application.keys() <= ServeApplicationSchema.model_fields.keys()
    settings = MantaConfig.model_validate(application["args"])
    assert settings.ingress.replicas > 1
    assert all(tier.replicas > 1 for tier in settings.tiers)  # else an upgrade leaves the tier without a replica
    assert settings.state.shared
    assert settings.router.review.secret_file == Path("/etc/manta/review-secret")  # which the first steps make
    assert all((ROOT / tier.engine.model).is_dir() and not tier.num_gpus for tier in settings.tiers)


def test_the_environment_of_a_node_is_what_the_doctor_asks_for_and_what_pods_have() -> None:
    node = variables(ROOT / "deployments" / "cluster.env", source=True)
    assert {name: node.get(name) for name in EXPECTED} == {name: value for name, (value, _) in EXPECTED.items()}
    assert Path(node[HAPROXY]) == ROOT / "deployments" / "haproxy"
    assert node["PATH"].startswith(f"{ROOT}/.venv/bin:")
    assert int(node["BAD_RUNTIME_ENV_CACHE_TTL_SECONDS"]) == 1  # a checkout that was missing is found once it is there
    pod = variables(ROOT / "k8s" / "base" / "environment.env", source=False)
    assert {name: node[name] for name in (CLIENT_S, HARD_STOP_S)} == {
        name: pod[name] for name in (CLIENT_S, HARD_STOP_S)
    }
