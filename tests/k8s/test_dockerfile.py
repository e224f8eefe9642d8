"""The image has what the pods need, by the pins of constraints.txt, and runs as no root."""

from __future__ import annotations

import re
import tomllib

import pytest

from k8s.serve_config import IMAGE_ROOT
from tests.k8s.overlays import OVERLAYS, ROOT, pod_templates

TEXT = (ROOT / "k8s" / "Dockerfile").read_text()
LINES = [line for line in re.sub(r"\\\n", " ", TEXT).splitlines() if line and not line.startswith("#")]


def instructions(name: str) -> list[str]:
    """The arguments of the instructions ``name``, in order."""
    return [" ".join(line.split()[1:]) for line in LINES if line.split()[0] == name]


def test_every_base_is_named_by_a_digest_that_the_build_must_give() -> None:
    assert "BASE_DIGEST" in instructions("ARG")  # without a default: a build without it fails
    assert len(instructions("FROM")) == 2
    for base in instructions("FROM"):
        assert base.split()[0] == "${BASE_IMAGE}@${BASE_DIGEST}"


def test_the_base_has_the_python_that_the_code_asks_for() -> None:
    (image,) = [each for each in instructions("ARG") if each.startswith("BASE_IMAGE=")]
    lowest = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    version = re.search(r"python:(\d+\.\d+)-", image)
    assert version is not None
    assert lowest == f">={version[1]}"


def test_every_wheel_is_that_of_the_constraints() -> None:
    installs = re.findall(r"pip install (.*?)(?:&&|$)", " ".join(instructions("RUN")))
    assert installs
    assert all(each.startswith("--constraint constraints.txt ") for each in installs)
    (own,) = [each for each in installs if each.split()[-1] == "."]
    assert "--no-build-isolation" in own  # an isolated build would take the newest setuptools
    assert "--constraint constraints.txt setuptools" in [each.strip() for each in installs]
    assert "ADD" not in {line.split()[0] for line in LINES}  # nothing comes from elsewhere
    assert "curl" not in TEXT


def test_it_runs_as_a_user_by_number_the_one_of_the_pods() -> None:
    assert instructions("USER") == ["10001:10001"]
    stage = LINES[[i for i, line in enumerate(LINES) if line.startswith("FROM")][-1] :]
    assert not [line for line in stage[stage.index("USER 10001:10001") :] if line.startswith("RUN")]
    for overlay in OVERLAYS:
        for template in pod_templates(overlay).values():
            context = template["spec"]["securityContext"]
            assert f"{context['runAsUser']}:{context['runAsGroup']}" == "10001:10001"


def test_what_it_copies_is_in_the_checkout_and_in_the_build_context() -> None:
    ignored = (ROOT / "k8s" / "Dockerfile.dockerignore").read_text().splitlines()
    assert "*" in ignored
    for copied in instructions("COPY"):
        if not copied.startswith("--from"):
            for name in copied.split()[:-1]:
                assert (ROOT / name).exists()
                assert f"!{name}" in ignored


@pytest.mark.parametrize("name", ["haproxy", "models/safety", "models/cache_pairs", "models/fast"])
def test_the_checkout_s_part_of_a_config_is_where_the_serve_config_says(name: str) -> None:
    assert f"deployments {IMAGE_ROOT}/deployments" in instructions("COPY")
    assert (ROOT / "deployments" / name).exists()


def test_packages_that_a_config_names_are_in_the_image() -> None:
    for config in ("dev.yaml", "prod.yaml"):
        for package in re.findall(r"package:([\w-]+)/", (ROOT / "deployments" / config).read_text()):
            assert package in " ".join(instructions("RUN"))


def test_nothing_that_looks_like_a_secret_is_built_in() -> None:
    assert not re.search(r"(?i)(password|token|secret|api_key)\s*=", TEXT)
