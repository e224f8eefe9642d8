"""The sets of questions: where each lies, and how long its answers may be. All answers are greedy, at temperature 0: a
run can be repeated, and a model that is as good as it was gives the same words.
"""

from __future__ import annotations

from load_tests.quality.ifeval.prompt import read_ifeval
from load_tests.quality.item import read_held_out
from load_tests.quality.open_questions.question import read_open_questions
from load_tests.quality.options import IFEVAL, OPEN, TASKS, QualityOptions
from load_tests.quality.question import Question, QuestionSet

TASKS_MAX_TOKENS = 96  # the longest right reply of the curriculum, its working included, is shorter
# Published runs give 1,280. On a CPU length is the cost: 541 answers of 512 tokens take a model of 135 M parameters on
# one core up to 50 minutes, of 1,280 up to two hours. Lost are 15 of the 834 instructions, which ask for 400 words or
# more, and 6 that ask for 40 sentences or more.
IFEVAL_MAX_TOKENS = 512
OPEN_MAX_TOKENS = 160  # some 120 words: more than any of the questions asks for, and room for a preamble
MAX_TOKENS = {TASKS: TASKS_MAX_TOKENS, IFEVAL: IFEVAL_MAX_TOKENS, OPEN: OPEN_MAX_TOKENS}


def read_sets(options: QualityOptions) -> dict[str, QuestionSet[Question]]:
    """The files of the sets that ``options`` names, by the name of the set. IFEval is left out where no file of it was
    named and the usual one is not there.

    Raises OSError, and ValueError for a file that holds no questions, and if no set is left.
    """
    sets: dict[str, QuestionSet[Question]] = {}
    for name in options.sets:
        if name == TASKS:
            sets[name] = read_held_out(options.held_out)
        elif name == OPEN:
            sets[name] = read_open_questions(options.open_questions)
        elif options.ifeval is not None:
            sets[name] = read_ifeval(options.ifeval)
    if not sets:
        raise ValueError("no set to ask: IFEval's prompts are not part of the repository, name them with --ifeval")
    return sets
