"""The config tree: tiers of any number and names, and what one part says about another, refused with the key's name."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from cluster.app import has_warm_pools, read_forecaster, replica_bounds, replicas_of, scaled_follower
from cluster.autoscaling.config import AutoscalingConfig
from cluster.config import MantaConfig
from cluster.optional_tiers import without_tiers
from cluster.tier_references import check_aliases, check_thresholds
from load_tests.overhead.graph import StubGraphConfig, stub_config
from tests.cluster.graph import ROOT, dev_config

ENGINE = {"model": "models/Some-Model-8B"}
ROUTER = {"keys": [{"key": "sk-1", "tenant": "t", "team": "t"}]}
NAMES = ["small", "medium", "large"]


def config(tiers: object, **router: Any) -> MantaConfig:
    return MantaConfig.model_validate({"tiers": tiers, "router": {**ROUTER, **router}})


def tiers(*names: str) -> list[dict[str, Any]]:
    return [{"name": name, "engine": ENGINE} for name in names]


@pytest.mark.parametrize("names", [["only"], ["nano", "small.v2", "Qwen3-8B", "the_largest", "9000"], NAMES])
def test_any_number_of_tiers_has_any_names(names: list[str]) -> None:
    assert [tier.name for tier in config(tiers(*names)).tiers] == names


def test_tiers_as_a_mapping_are_taken_in_their_order() -> None:
    mapping = {"fast": {"engine": ENGINE, "replicas": 2}, "frontier": {"engine": ENGINE}}
    assert config(mapping) == config(
        [{"name": "fast", "engine": ENGINE, "replicas": 2}, {"name": "frontier", "engine": ENGINE}]
    )


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        ([], "at least 1 item"),
        ({}, "at least 1 item"),
        (tiers("small", "small"), "small: two tiers have this name"),
        (tiers("auto"), "auto: this name is reserved"),
        (tiers("Router"), "Router: this name is reserved"),
        (tiers("SemanticCache"), "SemanticCache: this name is reserved"),
        (tiers(""), "tiers.0.name"),
        (tiers("-fast"), "tiers.0.name"),
        (tiers("fa st"), "tiers.0.name"),
        (tiers("fast\n"), "tiers.0.name"),
        (tiers("x" * 65), "tiers.0.name"),
        ([{"engine": ENGINE}], "tiers.0.name"),
        ({"fast": {"name": "slow", "engine": ENGINE}}, "fast: is called slow inside"),
        ({"fast": None}, "fast: must be a mapping"),
        ("fast", "tiers"),
    ],
)
def test_tiers_that_cannot_be_told_apart_or_named_are_refused(bad: object, complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        config(bad)


@pytest.mark.parametrize(
    ("engine", "name"), [(ENGINE, "Some-Model-8B"), ({**ENGINE, "name": "house"}, "house"), ({"model": "m/"}, "m")]
)
def test_the_model_behind_a_tier_has_the_name_that_its_engine_reports(engine: dict[str, Any], name: str) -> None:
    (tier,) = config([{"name": "small", "engine": engine}]).tiers
    assert tier.model_name == name


@pytest.mark.parametrize("thresholds", [{}, {"large": 0.5}, {"medium": 0.4, "large": 0.4}, {"large": 0.6, "medium": 0}])
def test_thresholds_may_be_left_out_and_may_be_equal(thresholds: dict[str, float]) -> None:
    check_thresholds(thresholds, NAMES)


@pytest.mark.parametrize(
    ("thresholds", "complaint"),
    [
        ({"turbo": 0.5}, r"router\.auto\.thresholds\.turbo: there is no such tier; there are small, medium, large"),
        ({"small": 0.0}, r"router\.auto\.thresholds\.small: the first tier has no threshold"),
        ({"large": 0.3, "medium": 0.4}, r"router\.auto\.thresholds\.large: 0\.3 is below .*medium, 0\.4"),
    ],
)
def test_thresholds_that_make_no_sense_are_refused(thresholds: dict[str, float], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        check_thresholds(thresholds, NAMES)


def test_an_alias_stands_for_a_tier_or_for_auto() -> None:
    check_aliases({"gpt-4o-mini": "small", "gpt-4o": "auto"}, NAMES, has_auto=True)


@pytest.mark.parametrize(
    ("aliases", "complaint"),
    [
        ({"gpt-4o": "turbo"}, r"router\.aliases\.gpt-4o: there is no tier turbo; there are small, medium, large"),
        ({"turbo": "turbo"}, r"router\.aliases\.turbo: there is no"),
        ({"gpt-4o": "auto"}, r"router\.aliases\.gpt-4o: auto is not served, since router\.auto is null"),
        ({"small": "large"}, r"router\.aliases\.small: an alias must not be the name of a tier or auto"),
        ({"auto": "large"}, r"router\.aliases\.auto: an alias must not"),
    ],
)
def test_aliases_that_make_no_sense_are_refused(aliases: dict[str, str], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        check_aliases(aliases, NAMES, has_auto=False)


def test_a_router_that_knows_its_tiers_is_taken() -> None:
    made = config(
        tiers(*NAMES),
        auto={"thresholds": {"large": 0.5}},
        aliases={"gpt-4o-mini": "small", "gpt-4o": "auto"},
        keys=[{"key": "sk-1", "tenant": "t", "team": "t", "tiers": ["small", "large"]}],
    )
    assert made.router.auto is not None
    assert made.router.auto.thresholds == {"large": 0.5}


@pytest.mark.parametrize(
    ("router", "complaint"),
    [
        (
            {"auto": {"thresholds": {"turbo": 0.5}}},
            r"router\.auto\.thresholds\.turbo: there is no such tier; there are small, medium, large",
        ),
        ({"aliases": {"gpt-4o": "turbo"}}, r"router\.aliases\.gpt-4o: there is no tier turbo"),
        ({"aliases": {"gpt-4o": "auto"}, "auto": None}, r"router\.aliases\.gpt-4o: auto is not served"),
        (
            {"keys": [*ROUTER["keys"], {"key": "sk-2", "tenant": "t", "team": "t", "tiers": ["small", "turbo"]}]},
            r"router\.keys\.1\.tiers: there is no tier turbo; there are small, medium, large",
        ),
    ],
)
def test_a_router_that_speaks_of_other_tiers_is_refused_at_start(router: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        config(tiers(*NAMES), **router)


def with_routers(replicas: int, state: dict[str, Any]) -> MantaConfig:
    return MantaConfig.model_validate(
        {"tiers": tiers("only"), "router": ROUTER, "ingress": {"replicas": replicas}, "state": state}
    )


def test_several_routers_need_shared_state() -> None:
    with pytest.raises(ValidationError, match=r"ingress\.replicas: 2 routers need state\.url or state\.url_file"):
        with_routers(2, {})


@pytest.mark.parametrize(
    ("replicas", "state"), [(1, {}), (2, {"url": "redis://localhost"}), (2, {"url_file": "/etc/manta/redis-url"})]
)
def test_one_router_or_shared_state_is_taken(replicas: int, state: dict[str, Any]) -> None:
    assert with_routers(replicas, state).ingress.replicas == replicas


def test_a_forecaster_is_not_read_where_auto_is_not_served() -> None:
    assert read_forecaster(config(tiers(*NAMES), auto=None)) is None


@pytest.mark.parametrize(("file", "optional"), [("dev.yaml", ["general"]), ("prod.yaml", [])])
def test_the_deployments_have_their_tiers_in_order(file: str, optional: list[str]) -> None:
    deployed = yaml.safe_load((ROOT / "deployments" / file).read_text())
    made = MantaConfig.model_validate(deployed["applications"][0]["args"])
    assert [tier.name for tier in made.tiers] == ["fast", "balanced", "frontier", *optional]
    assert [tier.name for tier in made.tiers if tier.optional] == optional


def test_the_stub_graph_is_dev_yaml_with_one_tier_and_without_its_forecaster() -> None:
    made = StubGraphConfig.model_validate(stub_config(0.01)["applications"][0]["args"])
    assert [tier.name for tier in made.tiers] == ["fast"]
    assert read_forecaster(made) is None
    assert [key.key for key in made.router.keys] == [key["key"] for key in dev_config()["router"]["keys"]]


def scaled(**scaling: Any) -> MantaConfig:
    given = {"tiers": tiers("small", "large"), "router": ROUTER, "autoscaling": {"tiers": scaling}}
    return MantaConfig.model_validate(given)


def test_tiers_have_a_fixed_number_of_replicas_unless_they_are_scaled() -> None:
    found = scaled(large={"min": 2, "max": 8})
    small, large = found.tiers
    assert replicas_of(found, small) == {"num_replicas": 1}
    options = replicas_of(found, large)["autoscaling_config"]
    assert (options.min_replicas, options.max_replicas) == (2, 8)
    assert (options.upscale_delay_s, options.downscale_delay_s) == (0, 0)  # our policy has its own rules
    assert options.policy.policy_function == "cluster.autoscaling.serve_policy:TierAutoscaler"
    settings = AutoscalingConfig.model_validate(options.policy.policy_kwargs["settings"])
    assert settings == found.autoscaling
    # A controller of an earlier release refuses names that it does not know.
    assert options.policy.policy_kwargs["settings"] == {"tiers": {"large": {"min": 2, "max": 8}}}


def test_an_optional_tier_that_is_missing_is_not_scaled_either() -> None:
    left = without_tiers(scaled(small={"max": 2}, large={"max": 8}), ["large"])
    assert left.autoscaling is not None
    assert set(left.autoscaling.tiers) == {"small"}


@pytest.mark.parametrize(
    ("scaling", "complaint"),
    [
        ({"tiny": {"max": 2}}, "autoscaling.tiers.tiny: there is no such tier"),
        ({"small": {"min": 3, "max": 2}}, "max is 2"),
        ({"small": {"max": 2, "pool": "h100"}}, "no pool 'h100'"),
    ],
)
def test_scaling_that_cannot_be_carried_out_is_refused_at_start(scaling: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        scaled(**scaling)


def test_a_scaled_tier_has_no_fixed_number_of_replicas_too() -> None:
    given = {"tiers": [{"name": "small", "engine": ENGINE, "replicas": 2}], "router": ROUTER}
    with pytest.raises(ValidationError, match="small: the tier has replicas"):
        MantaConfig.model_validate({**given, "autoscaling": {"tiers": {"small": {"max": 4}}}})


def test_a_pool_has_the_gpus_that_the_minima_of_its_tiers_need() -> None:
    engine = {**ENGINE, "tensor_parallel": 2, "device": "cuda"}
    large = {"name": "large", "engine": engine, "num_gpus": 1, "num_cpus": 1}
    given = {"tiers": [*tiers("small"), large], "router": ROUTER}
    scaling = {"tiers": {name: {"min": 2, "max": 8, "pool": "h100"} for name in ("small", "large")}}
    enough = MantaConfig.model_validate({**given, "autoscaling": {**scaling, "pools": {"h100": 4}}})
    assert enough.autoscaling is not None
    with pytest.raises(ValidationError, match="the minima of its tiers need 4 GPUs, and it has 3"):
        MantaConfig.model_validate({**given, "autoscaling": {**scaling, "pools": {"h100": 3}}})


def test_the_warm_pool_of_a_tier_is_beside_its_bounds() -> None:
    found = scaled(small={"min": 1, "max": 2, "warm": 3}, large={"min": 0, "max": 2, "warm": 1})
    small, large = (replicas_of(found, tier)["autoscaling_config"] for tier in found.tiers)
    # It is not in the minimum, or Serve would start the warm replicas for which the policy has no GPUs.
    assert (small.min_replicas, small.max_replicas) == (1, 5)
    assert (large.min_replicas, large.max_replicas) == (0, 3)
    assert has_warm_pools(found)
    assert not has_warm_pools(scaled(small={"max": 2}))


def following(followers: dict[str, Any], **sections: Any) -> MantaConfig:
    given = {"tiers": tiers("small"), "router": ROUTER, "autoscaling": {"followers": followers}}
    return MantaConfig.model_validate({**given, **sections})


def test_a_deployment_beside_the_tiers_is_scaled_between_its_bounds() -> None:
    found = following({"Router": {"min": 2, "max": 6}}, state={"url": "redis://127.0.0.1:1"})
    options = scaled_follower(found, "Router")
    assert options is not None
    assert (options["autoscaling_config"].min_replicas, options["autoscaling_config"].max_replicas) == (2, 6)
    assert scaled_follower(found, "Embedder") is None
    assert replica_bounds(found) == {}  # no tier can be pinned, but the decisions can be seen
    assert replica_bounds(config(tiers("small"))) is None


@pytest.mark.parametrize(
    ("followers", "sections", "complaint"),
    [
        ({"Embedder": {}}, {}, "followers.Embedder: there is no such deployment; there are Router"),
        ({"Embeder": {}}, {"embedder": {"model": "m"}}, "there are Router, Embedder"),
        (
            {"Embedder": {}},
            {"embedder": {"model": "m", "replicas": 2}},
            "followers.Embedder: the deployment has replicas",
        ),
        ({"Embedder": {}}, {"embedder": {"model": "m"}, "small_models": {}}, "there are Router, SmallModels"),
        ({"Router": {"max": 2}}, {}, "followers.Router.max: 2 routers need state.url"),
        ({"Router": {}}, {"ingress": {"replicas": 1}}, "followers.Router: the deployment has replicas"),
    ],
)
def test_a_follower_that_cannot_be_scaled_is_refused_by_name(
    followers: dict[str, Any], sections: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ValidationError, match=complaint):
        following(followers, **sections)


def test_dev_yaml_scales_nothing() -> None:
    assert MantaConfig.model_validate(dev_config()).autoscaling is None
