"""The command that counts series: what it sends, and what it makes of Prometheus' text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from cluster.config import MantaConfig
from cluster.telemetry.series_bounds import series_bounds
from load_tests.overhead.mixed_load import SERVICE_TIERS, Asked, mixed_requests
from load_tests.overhead.scrape import series, series_by_process
from load_tests.overhead.series import count, mixed, short_requests

ROOT = Path(__file__).resolve().parents[2]
TIERS = ["fast", "balanced"]
SCRAPED = """\
# HELP ray_manta_cost_total What requests have cost.
# TYPE ray_manta_cost_total gauge
ray_manta_cost_total{WorkerId="a",tenant="x"} 1.0
ray_manta_cost_total{WorkerId="a",tenant="y"} 1.0
ray_manta_cost_total{WorkerId="b",tenant="x"} 1.0
ray_manta_journal_bytes{WorkerId="a",log="audit"} 0.0
ray_node_mem_used{ip="127.0.0.1"} 5.0
up 1.0
"""


@pytest.fixture(scope="module")
def dev() -> MantaConfig:
    (application,) = yaml.safe_load((ROOT / "deployments" / "dev.yaml").read_text())["applications"]
    return MantaConfig.model_validate(application["args"])


def bodies(found: list[Asked], path: str) -> list[dict[str, object]]:
    return [dict(each.body) for each in found if each.path == path and each.body is not None]


def test_the_mix_has_every_route_class_and_kind_of_answer() -> None:
    found = mixed_requests(7, TIERS, "minilm")
    chats = bodies(found, "/v1/chat/completions")
    for tier in (*TIERS, "auto"):
        asked = {(each.get("service_tier"), bool(each.get("stream"))) for each in chats if each.get("model") == tier}
        assert {(each, stream) for each in SERVICE_TIERS for stream in (False, True)} <= asked
    assert all(any(name in each for each in chats) for name in ("tools", "response_format", "n", "user"))
    documented = set(re.findall(r"`(?:POST|GET) (/v1/[a-z/]+)`", (ROOT / "docs" / "api.md").read_text()))
    assert documented - {each.path for each in found} <= {"/v1/cache/feedback", "/v1/streams/"}
    assert any(each.leaves for each in found)
    assert sum(each.narrow for each in found) > 1


def test_each_tenant_has_names_of_its_own() -> None:
    one, other = (str(mixed_requests(number, TIERS, "minilm")) for number in (1234, 5678))
    for name in ("model-", "path-", "user-", "stream-", "embedding-", "tier-"):
        assert f"{name}1234" in one
        assert f"{name}1234" not in other


def test_only_the_first_tenants_send_all_and_the_others_few_requests_with_names_of_their_own(dev: MantaConfig) -> None:
    of = mixed(dev, 2)
    assert len(of(1)) > 60
    assert len(of(2)) < 15
    for name in ("model-", "path-", "user-", "stream-", "embedding-", "tier-"):
        assert f"{name}1234" in str(of(1234))
        assert f"{name}1234" not in str(of(1235))


def test_the_short_load_asks_each_tier_a_model_and_a_path() -> None:
    asked = short_requests(TIERS)(3)
    assert [each.path for each in asked] == ["/v1/chat/completions"] * 3 + ["/v1/path-3"]


def test_series_are_counted_by_metric_and_by_process() -> None:
    assert series(SCRAPED) == {
        "ray_manta_cost_total": 3,
        "ray_manta_journal_bytes": 1,
        "ray_node_mem_used": 1,
        "up": 1,
    }
    assert series_by_process(SCRAPED) == {
        ("ray_manta_cost_total", "a"): 2,
        ("ray_manta_cost_total", "b"): 1,
        ("ray_manta_journal_bytes", "a"): 1,
    }


def test_a_count_says_what_is_too_much_and_what_is_lost(dev: MantaConfig) -> None:
    fine = count(SCRAPED, series_bounds(dev))
    assert (fine.total, fine.ours, fine.lost, list(fine.excess)) == (6, 4, False, [])
    more = "".join(f'ray_manta_journal_bytes{{WorkerId="a",log="{number}"}} 0.0\n' for number in range(2))
    wrong = count(SCRAPED + more + 'ray_manta_cost_total{otel_metric_overflow="true"} 1.0\n', series_bounds(dev))
    assert wrong.lost
    assert fine.is_bounded
    assert not wrong.is_bounded
    assert not count("up 1.0\n", series_bounds(dev)).is_bounded, "none of Manta"
    assert list(wrong.excess) == ["ray_manta_journal_bytes: 3 of process a, 2 at most"]
