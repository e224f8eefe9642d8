"""Each alert fires when it should, and does not when it should not: by Prometheus' own ``promtool``."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from k8s.monitoring.alerts import groups
from k8s.monitoring.dashboards import dashboards
from k8s.monitoring.rule import Alert, prometheus_rule

Series = dict[str, str]
"""The values of series, one a minute, in promtool's notation, by the series."""


class Case(NamedTuple):
    """What the alert ``name`` sees, and how often it fires after ``minutes``."""

    name: str
    why: str
    series: Series
    minutes: int
    firing: int


REQUESTS = "ray_manta_requests_total"
TTFT, ITL, WAIT = "ray_manta_ttft_seconds", "ray_manta_itl_seconds", "ray_manta_queue_wait_seconds"
STANDARD, BATCH = 'tier="fast", class="standard"', 'tier="fast", class="batch"'
OTHER = 'tier="general", class="standard"'
SLOWEST = 'tier="frontier", class="standard"'
BREAKER = 'ray_manta_breaker_open{dependency="classifier"}'
REPLICA_INFO = {'ray_manta_build_info{tier="fast"}': "1x600"}
ROUTER_INFO = {'ray_manta_router_build_info{release="1.2.0"}': "1x600"}
INFO = {**REPLICA_INFO, **ROUTER_INFO}


def requests(finished: int, failed: int) -> Series:
    """Requests a minute, for eight hours."""
    return {
        f'{REQUESTS}{{tier="fast", tenant="a", outcome="finished"}}': f"0+{finished}x480",
        f'{REQUESTS}{{tier="fast", tenant="a", outcome="failed"}}': f"0+{failed}x480",
        f'{REQUESTS}{{tier="fast", tenant="a", outcome="refused"}}': "0+500x480",
    }


def histogram(name: str, labels: str, bound: str, within: int, all_: int) -> Series:
    """Values a minute, ``within`` of them up to a bound, for eight hours."""
    good = {f'{name}_bucket_total{{{labels}, le="{bound}"}}': f"0+{within}x480"} if within else {}
    return {**good, f"{name}_count_total{{{labels}}}": f"0+{all_}x480"}


def journal(values: str) -> Series:
    return {'ray_manta_journal_bytes{log="ledger"}': values}


def kv(used: int) -> Series:
    return {
        'ray_manta_kv_blocks{tier="fast", state="used", WorkerId="a"}': f"{used}x60",
        'ray_manta_kv_blocks{tier="fast", state="total", WorkerId="a"}': "100x60",
        'ray_manta_kv_blocks{tier="fast", state="used", WorkerId="b"}': "5x60",
        'ray_manta_kv_blocks{tier="fast", state="total", WorkerId="b"}': "100x60",
    }


def waits(seconds: float) -> Series:
    """Requests that all wait ``seconds``."""
    bounds = (0.5, 1.0, 2.0, 5.0, 10.0)
    buckets = {
        f'{WAIT}_bucket_total{{{STANDARD}, le="{bound}"}}': f"0+{6 if seconds <= bound else 0}x60" for bound in bounds
    }
    return {**buckets, f'{WAIT}_bucket_total{{{STANDARD}, le="+Inf"}}': "0+6x60"}


def preemptions(each_minute: int) -> Series:
    return {
        'ray_manta_engine_preemptions_total{tier="fast"}': f"0+{each_minute}x60",
        f"{WAIT}_count_total{{{STANDARD}}}": "0+30x60",
    }


def decisions(unscanned: int) -> Series:
    name = "ray_manta_safety_decisions_total"
    return {
        f'{name}{{tenant="a", decision="unscanned"}}': f"0+{unscanned}x60",
        f'{name}{{tenant="a", decision="allowed"}}': "0+100x60",
    }


def replicas(target: int, ready: int) -> Series:
    return {
        'ray_manta_autoscaling_target_replicas{tier="fast"}': f"{target}x60",
        'ray_manta_autoscaling_ready_replicas{tier="fast"}': f"{ready}x60",
    }


def failed_starts(*minutes: int) -> Series:
    """Replicas that do not start. Each is a process that counts once and ends, whose series Ray exports for ever."""
    return {f'{STARTS}{{tier="fast", WorkerId="{at}"}}': "_ " * at + "1x300" for at in minutes}


def oldest(of: str) -> Series:
    """A request that waits, a minute longer each minute, on one of two replicas."""
    labels = f'tier="fast", class="{of}"'
    return {f'{OLDEST}{{{labels}, WorkerId="a"}}': "0+60x60", f'{OLDEST}{{{labels}, WorkerId="b"}}': "0x60"}


def work(
    replica: str, running: int = 0, waiting: int = 0, tokens: str = "", prompts: str = "", application: str = "manta"
) -> Series:
    """What a replica has to do, and the counters of the tokens that it has written and read."""
    labels = f'application="{application}", tier="fast", WorkerId="{replica}"'
    counted = {TOKENS: tokens, PROMPTS: prompts}
    return {
        f"ray_manta_engine_running{{{labels}}}": f"{running}x60",
        f'ray_manta_engine_waiting{{{labels}, class="standard"}}': f"{waiting}x60",
        f'ray_manta_engine_waiting{{{labels}, class="batch"}}': "0x60",
        **{f"{name}{{{labels}}}": values for name, values in counted.items() if values},
    }


def of_app(application: str, has_router: bool) -> Series:
    """Two replicas of an application, and a router if it has one."""
    replicas = {f'ray_manta_build_info{{application="{application}", WorkerId="{each}"}}': "1x600" for each in "ab"}
    return {**replicas, **({f'ray_manta_journal_bytes{{application="{application}"}}': "0x600"} if has_router else {})}


OLDEST = "ray_manta_engine_oldest_wait_seconds"
STARTS = "ray_manta_replica_start_failures_total"
WAITING = {'ray_manta_engine_waiting{tier="fast", class="standard"}': "3x60"}
TOKENS = "ray_manta_engine_generated_tokens_total"
PROMPTS = "ray_manta_engine_prompt_tokens_total"

CASES = [
    Case("MantaAvailabilityBudgetBurn", "two of 100 fail: fast and slow windows", requests(98, 2), 70, 3),
    Case("MantaAvailabilityBudgetBurn", "two of 1,000: the slow one", requests(998, 2), 400, 1),
    Case("MantaAvailabilityBudgetBurn", "refused requests are no failures", requests(100, 0), 70, 0),
    Case("MantaAvailabilityBudgetBurn", "40 in an hour are too few", {
        f'{REQUESTS}{{tier="fast", tenant="a", outcome="failed"}}': "0x30 0+1x40",
    }, 70, 0),
    Case("MantaFirstTokenBudgetBurn", "a fifth is late", histogram(TTFT, STANDARD, "1.0", 8, 10), 70, 3),
    Case("MantaFirstTokenBudgetBurn", "all are late: no such bucket", histogram(TTFT, STANDARD, "1.0", 0, 10), 70, 3),
    Case("MantaFirstTokenBudgetBurn", "one of 200 is late", histogram(TTFT, STANDARD, "1.0", 199, 200), 400, 0),
    Case("MantaFirstTokenBudgetBurn", "batch work may wait", histogram(TTFT, BATCH, "1.0", 1, 10), 70, 0),
    Case("MantaFirstTokenBudgetBurn", "ten events in an hour", {
        f"{TTFT}_count_total{{{STANDARD}}}": "0+0x55 1+1x12",
    }, 70, 0),
    Case("MantaTokenIntervalBudgetBurn", "a fifth is late", histogram(ITL, 'tier="fast"', "0.05", 800, 1000), 70, 3),
    Case("MantaFirstTokenBudgetBurn", "another tier may take 2 s", histogram(TTFT, OTHER, "2.0", 10, 10), 70, 0),
    Case("MantaFirstTokenBudgetBurn", "and no longer", histogram(TTFT, OTHER, "2.0", 8, 10), 70, 3),
    Case("MantaFirstTokenBudgetBurn", "the slowest tier may take 3 s", {
        f'{TTFT}_bucket_total{{{SLOWEST}, le="3.0"}}': "0+10x480",
        f'{TTFT}_bucket_total{{{SLOWEST}, le="2.5"}}': "0+2x480",
        f"{TTFT}_count_total{{{SLOWEST}}}": "0+10x480",
    }, 400, 0),
    Case("MantaFirstTokenBudgetBurn", "and no longer either", histogram(TTFT, SLOWEST, "3.0", 8, 10), 70, 3),
    Case("MantaFirstTokenBudgetBurn", "one replica is of a release without a bucket at 3 s", {
        f'{TTFT}_bucket_total{{{SLOWEST}, WorkerId="a", le="3.0"}}': "0+10x480",
        f'{TTFT}_bucket_total{{{SLOWEST}, WorkerId="a", le="2.5"}}': "0+9x480",
        f'{TTFT}_count_total{{{SLOWEST}, WorkerId="a"}}': "0+10x480",
        f'{TTFT}_bucket_total{{{SLOWEST}, WorkerId="b", le="2.5"}}': "0+10x480",
        f'{TTFT}_count_total{{{SLOWEST}, WorkerId="b"}}': "0+10x480",
    }, 400, 0),
    Case("MantaTokenIntervalBudgetBurn", "none is late", histogram(ITL, 'tier="fast"', "0.05", 1000, 1000), 70, 0),
    Case("MantaWorkWithoutTokens", "none was ever written", work("a", waiting=3), 12, 1),
    Case("MantaWorkWithoutTokens", "none any more", work("a", waiting=3, tokens="0+100x10 1000x50"), 30, 1),
    Case("MantaWorkWithoutTokens", "a running request hangs", work("a", running=1, tokens="0+9x10 90x50"), 30, 1),
    Case("MantaWorkWithoutTokens", "on one of two replicas", {
        **work("a", running=1, tokens="0+100x10 1000x50"), **work("b", running=4, tokens="0+100x60"),
    }, 30, 1),
    Case("MantaWorkWithoutTokens", "in two applications", {
        **work("a", running=1), **work("b", running=1, application="other"),
    }, 30, 2),
    Case("MantaWorkWithoutTokens", "tokens are written", work("a", 2, 3, tokens="0+100x60"), 30, 0),
    Case("MantaWorkWithoutTokens", "a prompt is read for 40 minutes", work("a", 1, prompts="0+2500x60"), 40, 0),
    Case("MantaWorkWithoutTokens", "a step takes 8 minutes", {
        **work("a", 1, prompts="0x8 500x8 1000x8 1500x8 2000x8 2500x20"),
    }, 40, 0),
    Case("MantaWorkWithoutTokens", "nothing is to be done", work("a"), 30, 0),
    Case("MantaWorkWithoutTokens", "it hung for 8 minutes", {
        **work("a", 1, tokens="0+100x10 1000x8 1100+100x60"),
    }, 30, 0),
    Case("MantaQueueWait", "seven seconds", waits(7), 30, 1),
    Case("MantaQueueWait", "a second", waits(1), 30, 0),
    Case("MantaRequestStarved", "one waits on and on", oldest("standard"), 10, 1),
    Case("MantaRequestStarved", "batch work may", oldest("batch"), 10, 0),
    Case("MantaRequestStarved", "others come and go", {f'{OLDEST}{{tier="fast", class="standard"}}': "40x60"}, 10, 0),
    Case("MantaKVPressure", "one replica is full", kv(98), 30, 1),
    Case("MantaKVPressure", "none is", kv(90), 30, 0),
    Case("MantaPreemptionStorm", "as many as requests", preemptions(30), 30, 1),
    Case("MantaPreemptionStorm", "few", preemptions(3), 30, 0),
    Case("MantaFailovers", "one a minute", {'ray_manta_failovers_total{tier="fast", kind="resumed"}': "0+1x60"}, 30, 1),
    Case("MantaFailovers", "planned moves", {'ray_manta_failovers_total{tier="fast", kind="moved"}': "0+9x60"}, 30, 0),
    Case("MantaReplicasMissing", "one of two", replicas(2, 1), 50, 1),
    Case("MantaReplicasMissing", "all are there", replicas(2, 2), 50, 0),
    Case("MantaReplicaStartFails", "the first ever", failed_starts(20), 30, 1),
    Case("MantaReplicaStartFails", "again and again, for longer than the window", failed_starts(*range(200)), 100, 1),
    Case("MantaReplicaStartFails", "a second time", failed_starts(5, 200), 210, 1),
    Case("MantaReplicaStartFails", "twice, long ago", failed_starts(0, 1), 100, 0),
    Case("MantaBreakerOpen", "open", {BREAKER: "1x60"}, 30, 1),
    Case("MantaBreakerOpen", "open for a moment", {BREAKER: "0x20 1 0x39"}, 24, 0),
    Case("MantaGuardUnscanned", "a tenth", decisions(12), 30, 1),
    Case("MantaGuardUnscanned", "a hundredth", decisions(1), 30, 0),
    Case("MantaJournalGrowing", "it grows", journal("0 1000+1000x60"), 50, 1),
    Case("MantaJournalGrowing", "it empties again and again", journal("0 5000 " * 30), 50, 0),
    Case("MantaJournalGrowing", "it becomes empty", journal("60000-1000x60"), 50, 0),
    Case("MantaRecordsLost", "the first ever", {'ray_manta_lost_records_total{log="ledger"}': "_x20 1x40"}, 30, 1),
    Case("MantaRecordsLost", "another one", {'ray_manta_lost_records_total{log="ledger"}': "1x100 2x20"}, 110, 1),
    Case("MantaRecordsLost", "by another router", {
        'ray_manta_lost_records_total{log="ledger", WorkerId="a"}': "1x120",
        'ray_manta_lost_records_total{log="ledger", WorkerId="b"}': "_x100 1x20",
    }, 110, 1),
    Case("MantaRecordsLost", "long ago, and then a node was not scraped for a moment", {
        'ray_manta_lost_records_total{log="ledger", WorkerId="a"}': "1x199 stale 1x200",
        'ray_manta_lost_records_total{log="ledger", WorkerId="b"}': "1x400",
    }, 260, 0),
    Case("MantaRecordsLost", "on a node that is gone", {
        'ray_manta_lost_records_total{log="ledger"}': "_x100 1 1 stale",
    }, 110, 1),
    Case("MantaRecordsLost", "long ago, on a node that is gone", {
        'ray_manta_lost_records_total{log="ledger"}': "_x100 1 1 stale",
    }, 240, 0),
    Case("MantaRecordsLost", "long ago", {'ray_manta_lost_records_total{log="ledger"}': "1x300"}, 200, 0),
    Case("MantaPolicyUnreadable", "each minute", {"ray_manta_unreadable_policies_total": "0+1x60"}, 40, 1),
    Case("MantaPolicyUnreadable", "once", {"ray_manta_unreadable_policies_total": "1x60"}, 40, 0),
    Case("MantaCacheRepaired", "the first ever", {'ray_manta_engine_repairs_total{tier="fast"}': "_x20 1x40"}, 30, 1),
    Case("MantaCacheRepaired", "long ago", {'ray_manta_engine_repairs_total{tier="fast"}': "1x300"}, 200, 0),
    Case("MantaMetricsMissing", "there are none", WAITING, 10, 1),
    Case("MantaMetricsMissing", "of routers there are none", REPLICA_INFO, 10, 1),
    Case("MantaMetricsMissing", "of replicas there are none", ROUTER_INFO, 10, 1),
    Case("MantaMetricsMissing", "the routers are of a release without build info", {
        **REPLICA_INFO, 'ray_manta_journal_bytes{log="audit"}': "0x600",
    }, 10, 0),
    Case("MantaMetricsMissing", "there are", INFO, 10, 0),
    Case("MantaSeriesLost", "of two metrics", {
        'ray_manta_tokens_total{otel_metric_overflow="true"}': "0+1x60",
        'ray_manta_engine_running{otel_metric_overflow="true"}': "1x60",
    }, 10, 1),
    Case("MantaSeriesLost", "of a process, whose mark has another name and no value", {
        'ray_manta_tokens_total{otel_scope_name="a", instance="b"}': "0+1x60",
    }, 10, 1),
    Case("MantaSeriesLost", "all have the label of their process", {
        'ray_manta_tokens_total{tenant="a", WorkerId="a", otel_metric_overflow=""}': "0+1x60",
    }, 10, 0),
    Case("MantaSeriesLost", "Prometheus drops the label of the process", {
        'ray_manta_tokens_total{tenant="a", application="a"}': "0+1x60",
    }, 10, 0),
    Case("MantaSeriesLost", "of another's metric", {'ray_other{otel_metric_overflow="true"}': "1x60"}, 10, 0),
    Case("MantaRoutersMissing", "of one of two applications", {**of_app("a", True), **of_app("b", False)}, 10, 1),
    Case("MantaRoutersMissing", "of both", {**of_app("a", False), **of_app("b", False)}, 10, 2),
    Case("MantaRoutersMissing", "the last one has ended", {
        **of_app("a", False), 'ray_manta_router_build_info{application="a", release="1.2.0"}': "1x20 stale",
    }, 30, 1),
    Case("MantaRoutersMissing", "one of three is left", {
        **of_app("a", True), 'ray_manta_router_build_info{application="a", release="1.1.0"}': "1x5 stale",
    }, 30, 0),
    Case("MantaRoutersMissing", "a rollout takes a minute", {
        **of_app("a", False), 'ray_manta_router_build_info{application="a", release="1.2.0"}': "1x20 stale 1x60",
    }, 24, 0),
    Case("MantaRoutersMissing", "the routers are of a release without build info", {
        **of_app("a", False), 'ray_manta_journal_bytes{application="a", log="audit"}': "0x600",
    }, 10, 0),
    Case("MantaDeadMansSwitch", "always", INFO, 0, 1),
]  # fmt: skip


@pytest.fixture(scope="module")
def promtool() -> str:
    """Prometheus' tool. It is in Debian's package ``prometheus``, and on PyPI it is not."""
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed")
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the rules as Prometheus reads them."""
    path = tmp_path_factory.mktemp("rules")
    (path / "rules.yaml").write_text(yaml.safe_dump(prometheus_rule(groups())["spec"]))
    return path


def run(promtool: str, *arguments: str) -> None:
    done = subprocess.run([promtool, *arguments], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_accepts_every_rule(promtool: str, folder: Path) -> None:
    run(promtool, "check", "rules", str(folder / "rules.yaml"))


def test_prometheus_can_parse_every_panel(promtool: str, folder: Path) -> None:
    queries = [query.expression for board in dashboards() for panel in board.panels for query in panel.queries]
    texts = [each.replace("$__rate_interval", "5m") for each in queries]
    rules = [{"record": f"panel:{number}", "expr": text} for number, text in enumerate(texts)]
    (folder / "panels.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    run(promtool, "check", "rules", str(folder / "panels.yaml"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name}: {case.why}")
def test_an_alert_fires_when_it_should(promtool: str, folder: Path, case: Case) -> None:
    expected = [{"labels": "{}", "value": case.firing}] if case.firing else []
    test: dict[str, Any] = {
        "interval": "1m",
        "input_series": [{"series": series, "values": values} for series, values in case.series.items()],
        "promql_expr_test": [
            {
                "expr": f'count(ALERTS{{alertname="{case.name}", alertstate="firing"}})',
                "eval_time": f"{case.minutes}m",
                "exp_samples": expected,
            }
        ],
    }
    document = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [test]}
    path = folder / "test.yaml"
    path.write_text(yaml.safe_dump(document))
    run(promtool, "test", "rules", str(path))


def test_every_alert_is_seen_to_fire_and_not_to_fire() -> None:
    names = {rule.name for group in groups() for rule in group.rules if isinstance(rule, Alert)}
    assert {case.name for case in CASES if case.firing} == names
    assert {case.name for case in CASES if not case.firing} == names - {"MantaDeadMansSwitch"}
