"""``python -m load_tests.simulation.ablations``: each signal and each rule of the policy switched off once."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cluster.autoscaling import arrival_rate, reactive_scaling, signal_agreement, tier_policy
from cluster.autoscaling.config import AutoscalingConfig, ForecastConfig
from cluster.autoscaling.signal_inputs import SignalInputs
from cluster.autoscaling.snapshot import ReplicaSample, Snapshot
from cluster.autoscaling.steadiness import Steadiness
from load_tests.simulation.measures import measure
from load_tests.simulation.observation import Observation
from load_tests.simulation.policies.manta import MantaPolicy
from load_tests.simulation.profile import PROFILES
from load_tests.simulation.simulation import Settings, Simulation
from load_tests.simulation.suite import COLD_START_S, PROFILE, Case
from load_tests.simulation.tier import Tier
from load_tests.simulation.trace import Trace

NEVER_S = 1e-3  # seconds: a window or a period that holds nothing back
Patch = tuple[Any, str, Any]
"""An object, the name of one of its attributes, and the value that it has while the rule is off."""


@dataclass(frozen=True, slots=True)
class Ablation:
    """A signal or rule that is off: by settings of the fast loop, of the whole policy, or by a change of the code."""

    name: str
    fast: Mapping[str, float] = ()  # type: ignore[assignment]  # an empty mapping is shared
    settings: Mapping[str, Any] = ()  # type: ignore[assignment]
    patches: Sequence[Patch] = ()

    def config(self) -> AutoscalingConfig:
        """Returns the settings of the policy."""
        config = AutoscalingConfig()
        fast = config.fast.model_copy(update=dict(self.fast))
        return config.model_copy(update={"fast": fast, **dict(self.settings)})

    @contextmanager
    def off(self) -> Iterator[None]:
        """The rule is off for as long as it is entered."""
        with ExitStack() as stack:
            for owner, name, value in self.patches:
                stack.callback(setattr, owner, name, getattr(owner, name))
                setattr(owner, name, value)
            yield


def without_signal(signal: Callable[..., Any]) -> Ablation:
    """Returns the policy without one of its signals."""
    rest = tuple(each for each in tier_policy.SIGNALS if each is not signal)
    return Ablation(f"signal {signal.__name__}", patches=((tier_policy, "SIGNALS", rest),))


def _lasting_without_credit(inputs: SignalInputs, replicas: float, work_s: float) -> float:
    mean = inputs.flow_replicas
    return replicas if mean is None else min(replicas, mean + work_s / inputs.drain_s)


ABLATIONS = (
    Ablation("nothing"),
    *(without_signal(signal) for signal in tier_policy.SIGNALS),
    Ablation("forecast floor", settings={"forecast": ForecastConfig(enabled=False)}),
    Ablation("outdated forecasts", patches=((tier_policy, "fell_below", lambda *_: False),)),
    Ablation("measured slowness", patches=((tier_policy, "TRUSTED", inf),)),
    Ablation("second opinion", patches=((signal_agreement, "MAX_ALONE", inf),)),
    Ablation("flow of requests at work", patches=((SignalInputs, "at_work_replicas", 0.0),)),
    Ablation("dead band", fast={"band": 0.0}),
    Ablation("headroom", fast={"headroom": 0.0}),
    Ablation("steady flows", patches=((Steadiness, "is_steady", lambda _, __: False),)),
    Ablation("error budget", fast={"unspent_headroom": 1.0}),
    Ablation("headroom of forecasts", settings={"forecast": ForecastConfig(unspent_headroom=1.0)}),
    Ablation("window of falls", patches=((Steadiness, "is_falling", lambda _, __: False),)),
    Ablation("falls by their line", patches=((Steadiness, "fall", lambda _, __: None),)),
    Ablation("two needs before a raise", patches=((reactive_scaling, "LEAST_NEEDS", 1),)),
    Ablation("period between raises", fast={"up_period_s": NEVER_S}),
    Ablation("settling", patches=((reactive_scaling, "_is_settling", lambda *_: False),)),
    Ablation("window before a lowering", fast={"down_window_s": NEVER_S}),
    Ablation("period before a lowering", fast={"down_period_s": NEVER_S}),
    Ablation("check before a lowering", patches=((reactive_scaling, "fewest", lambda _, least, __: (least, None)),)),
    Ablation("credit for starting replicas", patches=((SignalInputs, "lasting", _lasting_without_credit),)),
    Ablation("stock limited by flow", patches=((SignalInputs, "lasting", lambda _, replicas, __: replicas),)),
    Ablation("rate since a change", patches=((arrival_rate, "rate_since_change", lambda *_: None),)),
    Ablation("chance of arrivals", patches=((arrival_rate, "CERTAINTY", 0.0),)),
)


@dataclass(frozen=True, slots=True)
class Faults:
    """The faults in a run. Replicas report ``speed`` times their speed; ``counted``: routers' counters are known."""

    failures_per_hour: float = 0.0
    stuck_share: float = 0.0
    speed: float = 1.0
    counted: bool = True


class MisledPolicy(MantaPolicy):
    """The policy, with reports that are wrong as ``faults`` says."""

    def __init__(self, tier: Tier, config: AutoscalingConfig, faults: Faults) -> None:
        super().__init__(tier, config)
        self._faults = faults

    def snapshot(self, seen: Observation) -> Snapshot:
        """Returns the snapshot with the faults in it."""
        found = super().snapshot(seen)
        (tier,) = found.tiers
        replicas = tuple(replace(each, sample=self._wrong(each.sample)) for each in tier.replicas)
        counters = tier.counters if self._faults.counted else {}
        return replace(found, tiers=(replace(tier, replicas=replicas, counters=counters),))

    def _wrong(self, sample: ReplicaSample | None) -> ReplicaSample | None:
        if sample is None or self._faults.speed == 1.0:
            return sample
        speed = self._faults.speed
        return replace(
            sample,
            prefill_tokens_per_s=speed * sample.prefill_tokens_per_s,
            decode_step_s=sample.decode_step_s / speed,
        )


CASES: tuple[tuple[str, Case, Faults], ...] = (
    ("azure", Case("azure", 5.0, 600.0), Faults()),
    ("mooncake", Case("mooncake", 2.0, 900.0), Faults()),
    ("square", Case("square", 12.0, 1800.0), Faults()),
    ("flash", Case("flash", 12.0, 900.0), Faults()),
    ("regime", Case("regime", 12.0, 900.0), Faults()),
    ("steady", Case("steady", 12.0, 600.0), Faults(failures_per_hour=6.0, stuck_share=0.2)),
    ("decode", Case("decode", 12.0, 900.0), Faults()),
    ("unequal", Case("unequal", 8.0, 900.0), Faults()),
    ("wrong speed", Case("ramp", 12.0, 900.0), Faults(speed=1.5)),
    ("no counters", Case("ramp", 12.0, 900.0), Faults(counted=False)),
)
"""The traces by the names of their columns, with the faults: crashes and stuck starts, replicas that report one and a
half times their speed, and routers whose counters are missing."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A case, ready to run."""

    trace: Trace
    settings: Settings
    tier: Tier
    faults: Faults

    @classmethod
    def of(cls, case: Case, faults: Faults, directory: Path, seed: int) -> Prepared:
        """Returns the case with its tier measured. Raises as ``Case.trace`` does."""
        trace = case.trace(directory, seed)
        sound = Settings(PROFILES[PROFILE], cold_start_s=COLD_START_S, seed=seed)
        tier = Tier.of(trace, sound)
        settings = replace(
            sound,
            replicas_start=tier.start_replicas(trace),
            admission=True,
            failures_per_hour=faults.failures_per_hour,
            stuck_share=faults.stuck_share,
        )
        return cls(trace, settings, tier, faults)

    def run(self, ablation: Ablation) -> dict[str, float]:
        """Returns attainment, GPU-hours and changes of one run."""
        with ablation.off():
            policy = MisledPolicy(self.tier, ablation.config(), self.faults)
            found = measure(Simulation(self.trace, policy, self.settings).run())
        return {"attainment": found.attainment, "gpu_hours": found.gpu_hours, "changes": found.changes}


def rows(results: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Returns the table: per cent not in time, GPU-hours and changes of the target, by ablation and trace."""
    names = [name for name, _, _ in CASES]
    lines = ["| off | " + " | ".join(names) + " |", "| --- " * (1 + len(names)) + "|"]
    for off, found in results.items():
        cells = [
            f"{100 * (1 - found[name]['attainment']):.2f}, {found[name]['gpu_hours']:.2f}, {found[name]['changes']:g}"
            if name in found
            else ""
            for name in names
        ]
        lines.append(f"| {off} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the ablations that are not in the results yet, and prints the table. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m load_tests.simulation.ablations", description=__doc__)
    parser.add_argument("--traces", type=Path, required=True, metavar="DIR", help="with those of Azure and Mooncake")
    parser.add_argument("--results", type=Path, required=True, metavar="FILE", help="JSON, to which runs are added")
    parser.add_argument("--only", nargs="*", metavar="NAME", help="these ablations")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    kept: dict[str, dict[str, Any]] = json.loads(options.results.read_text()) if options.results.exists() else {}
    chosen = [each for each in ABLATIONS if options.only is None or each.name in options.only]
    cases = {name: Prepared.of(case, faults, options.traces, options.seed) for name, case, faults in CASES}
    for ablation, name in tqdm([(each, name) for each in chosen for name in cases]):
        found = kept.setdefault(ablation.name, {})
        if name not in found:
            found[name] = cases[name].run(ablation)
            options.results.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    print(rows(kept))
    return 0


if __name__ == "__main__":
    sys.exit(main())
