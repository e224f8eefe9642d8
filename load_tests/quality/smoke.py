"""Whether a model still does what its baseline says, judged by so few items that every test run can ask them.

Scores alone are a blunt tool on a small subset; the words of the replies are a sharp one. A wrong kernel, tokenizer or
template changes nearly all of them, rounding on another CPU hardly any.
"""

from __future__ import annotations

from collections.abc import Sequence

from load_tests.quality.baseline import SetBaseline
from load_tests.quality.change import REPLY_TOLERANCE, changes, different
from load_tests.quality.outcome import Outcome
from load_tests.quality.question import Question, QuestionSet

EXAMPLES = 3  # of replies in other words


def broken(outcomes: Sequence[Outcome], questions: QuestionSet[Question], baseline: SetBaseline) -> list[str]:
    """What speaks against the models in ``outcomes``, a line each; nothing if they are well.

    Raises KeyError for a model that the baseline lacks.
    """
    models = dict.fromkeys(outcome.model for outcome in outcomes)
    marks = {model: baseline.marks(model, questions) for model in models}
    signs = [f"{o.model}, {o.item.id}: {o.reply.problem}" for o in outcomes if o.reply.problem is not None]
    signs += [str(change) for change in changes(outcomes, marks) if change.fell]
    for model in models:
        known = baseline.tiers[model].replies
        asked = sum(outcome.model == model and outcome.item.id in known for outcome in outcomes)
        others = different([outcome for outcome in outcomes if outcome.model == model], {model: known})
        if len(others) > REPLY_TOLERANCE * asked:
            signs.append(f"{model}: {len(others)} of {asked} replies are not those of the baseline, among them")
            signs += [f"  {other}" for other in others[:EXAMPLES]]
    return signs
