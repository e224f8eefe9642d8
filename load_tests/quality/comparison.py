"""What a run prints of its comparison with the baseline, set by set."""

from __future__ import annotations

from collections.abc import Iterable

from load_tests.quality.baseline import Baseline, SetBaseline
from load_tests.quality.change import changes, different
from load_tests.quality.set_run import SetRun


def fell(baseline: Baseline, runs: Iterable[SetRun]) -> bool:
    """Prints how the runs compare with the baseline; whether any part fell, or nothing could be compared."""
    print("\nagainst the baseline, on the same items")
    verdicts = []
    for run in runs:
        stored = baseline.sets.get(run.name)
        if stored is None:
            print(f"  {run.name}: not in the baseline, not compared")
        else:
            verdicts.append(_set_fell(stored, run))
    return any(verdicts) or all(verdict is None for verdict in verdicts)


def _set_fell(stored: SetBaseline, run: SetRun) -> bool | None:
    """Whether any part of one set fell; None where the baseline has none of the models."""
    models = run.by_model()
    marks = {model: stored.marks(model, run.questions) for model in models if model in stored.tiers}
    compared = changes(run.outcomes, marks)
    for model in models:
        if model not in marks:
            print(f"  {run.name}, {model}: not in the baseline, not compared")
    for change in compared:
        if change.fell or change.part == "overall":
            print(f"  {'FELL  ' if change.fell else 'ok    '}{run.name}, {change}")
    for model in marks:
        known = stored.tiers[model].replies
        others = different(models[model], {model: known})
        if known:
            print(f"  {run.name}, {model}: {len(others)} of {len(known)} stored replies are now in other words")
    return any(change.fell for change in compared) if marks else None
