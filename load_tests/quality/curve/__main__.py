"""``python -m load_tests.quality.curve``: accuracy against compute for every tolerance of the router."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from deployments.models.training.routing.sweep import Setting, best
from load_tests.quality.curve.comparison import Curve, kept, make_curve, read_run
from load_tests.quality.curve.plot import draw
from load_tests.quality.item import read_held_out
from load_tests.quality.options import HELD_OUT, MODELS
from router.tiers.quality_forecast import Forecaster

SHOWN = (0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0)  # tolerances in the table
DESCRIPTION = """\
What the router's choices come to on the held-out set, for tolerances from 0 (always the best tier) to 1 (always the
cheapest): right answers, and compute (tokens times parameters) as a part of what the best tier alone takes.

Needs every tier's answers to every item, as `python -m load_tests.quality --engine --json RUN.json` writes them, and
the forecaster's file. Beside the curve stand each tier alone, dice between two tiers, the heuristic that routes without
a forecaster, and the oracle, which knows the cheapest tier that is right.

The target is --keep of that tier's right answers for at most --spend of its compute. Judged is --tolerance,
which should be the configured one; without it the best one found here, which flatters the router a little.

examples:
  python -m load_tests.quality.curve RUN.json
  python -m load_tests.quality.curve RUN.json --plot docs/plots/auto.png --tolerance 0.05

exit codes: 0 the target is met, by --tolerance if given; 1 it is not; 2 cannot be run
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = make_parser()
    options = parser.parse_args(arguments)
    try:
        forecaster = Forecaster.from_json(options.forecast.read_text(encoding="utf-8"))
        document = json.loads(options.run.read_text(encoding="utf-8"))
        run = read_run(document, read_held_out(options.set), forecaster.tiers)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    curve = make_curve(run, forecaster)
    enough = options.keep * curve.reference.accuracy
    judged = best(curve.settings, enough) if options.tolerance is None else curve.at(options.tolerance)
    print(table(curve, len(run.items)))
    met = verdict(curve, judged, options)
    if options.plot is not None:
        draw(curve, judged, options.keep, options.spend, len(run.items), options.plot)
    return 0 if met else 1


def table(curve: Curve, count: int) -> str:
    """The curve for a terminal."""
    shown = [s for s in curve.settings if any(abs(s.tolerance - tolerance) < 1e-9 for tolerance in SHOWN)]
    rows = [(f"tolerance {setting.tolerance:.2f}", setting.point) for setting in shown]
    rows += [(f"{tier} alone", point) for tier, point in curve.tiers.items()]
    rows += [("heuristic", curve.heuristic), ("oracle", curve.oracle)]
    heads = f"{f'{count:,} items':<18}{'right':>8}{f'of {curve.best}':>14}{'compute':>10}   to {', '.join(curve.tiers)}"
    lines = [heads]
    for name, point in rows:
        shares = ", ".join(f"{share:.0%}" for share in point.shares)
        lines.append(
            f"{name:<18}{point.accuracy:>8.1%}{kept(point, curve.reference):>14.1%}{point.compute:>10.1%}   {shares}"
        )
    return "\n".join(lines)


def verdict(curve: Curve, setting: Setting | None, options: argparse.Namespace) -> bool:
    """Prints whether ``setting`` meets the target."""
    wanted = f"at least {options.keep:.0%} of the accuracy for at most {options.spend:.0%} of the compute"
    if setting is None:
        print(f"\nno tolerance keeps {options.keep:.0%} of the accuracy\nmissed: {wanted}")
        return False
    accuracy, compute = kept(setting.point, curve.reference), setting.point.compute
    met = bool(accuracy >= options.keep and compute <= options.spend)
    print(f"\ntolerance {setting.tolerance:.3f}: {accuracy:.1%} of the accuracy for {compute:.1%} of the compute")
    print(f"{'met' if met else 'missed'}: {wanted}")
    return met


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m load_tests.quality.curve",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("run", type=Path, metavar="RUN.json", help="every tier's answers")
    add("--forecast", type=Path, default=MODELS / "auto.json", help="forecaster's file (default: %(default)s)")
    add("--set", type=Path, default=HELD_OUT, help="the held-out items of the run (default: %(default)s)")
    add("--tolerance", type=float, help="judge this one (default: the best)")
    add("--keep", type=float, default=0.95, help="accuracy wanted, of the best tier's (default: %(default)s)")
    add("--spend", type=float, default=0.60, help="compute allowed, of the best tier's (default: %(default)s)")
    add("--plot", type=Path, metavar="OUT.png", help="draw the curve")
    return parser


if __name__ == "__main__":
    sys.exit(main())
