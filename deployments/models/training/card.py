"""The model card of an embedded tier."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from deployments.models.training.curriculum.task import FAMILIES, LEVELS
from deployments.models.training.english import (
    COMMON_CHARS,
    HELD_OUT_SHARE,
    MAX_CHARS,
    MAX_ROLE_PLAY_CHARS,
    MIN_WORDS,
    Conversation,
)
from deployments.models.training.evaluation import bits_per_byte
from deployments.models.training.shapes import SHAPES, Shape
from deployments.models.training.trainer import TrainingRun
from engine import Engine, SamplingParams
from engine.api import Conversation as Asked
from engine.api import EngineError, Message
from load_tests.quality.item import Item
from load_tests.quality.offline import ask_engine
from load_tests.quality.outcome import Outcome
from load_tests.quality.score import score

SOURCES = (
    "GPTeacher role play (corpus/gpteacher, MIT), T0's training templates (corpus/t0_train, Apache-2.0), "
    "GSM8K's train set (corpus/gsm8k_train, MIT)"
)
ENGLISH = (
    f"conversations of up to {MAX_CHARS} characters (role play: {MAX_ROLE_PLAY_CHARS}), "
    f"answers of {MIN_WORDS} words or more"
)
SPLITS = (
    "tasks: values by their checksum, phrasings by their place in a list; English: one question in "
    f"{HELD_OUT_SHARE} by its checksum, and its answer with it unless that has up to {COMMON_CHARS} characters. Sizes, "
    "rates and how long each tier reads were chosen by the held-out set itself: there is no third"
)
QUESTIONS = (
    "Which animals live on a farm?",
    "Why do people sleep at night?",
    "Write a sentence with the words dog, ball and park.",
)
MAX_TOKENS = 96  # of an answer, as when quality is measured


def write_card(
    name: str,
    directory: Path,
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    run: TrainingRun,
    shape: Shape,
    english: Sequence[Conversation],
    items: Sequence[Item],
    *,
    seed: int,
    device: str,
) -> str:
    """Markdown: what it is, how it was trained, how good it is, what it says, unedited.

    ``directory`` holds the saved model, which answers through the engine; ``model`` is the same in float32. ``device``
    names where it was trained.
    """
    engine = Engine.from_pretrained(str(directory), dtype="float32", max_waiting=len(items))
    outcomes = ask_engine(engine, name, items, MAX_TOKENS, lambda: None)
    problem = next((outcome.reply.problem for outcome in outcomes if outcome.reply.problem is not None), None)
    if problem is not None:
        raise EngineError(f"an answer failed, which is no wrong answer: {problem}")
    bits = bits_per_byte(model, tokenizer, english)
    prompts = [Asked((Message("user", question),)) for question in QUESTIONS]
    replies = engine.generate(prompts, SamplingParams(temperature=0.0, max_tokens=MAX_TOKENS))
    samples = "\n\n".join(quoted(q, said.text) for q, said in zip(QUESTIONS, replies, strict=True))
    parameters = sum(p.numel() for p in model.parameters())
    before = sum(SHAPES[each].tokens for each in ancestors(shape))
    begun = (
        f"the weights of `{shape.grown_from}` (`training/shapes.py`), widened and deepened, "
        f"for which {before / 1e6:.1f} M tokens had been read"
        if shape.grown_from
        else "random weights"
    )
    return f"""# {name}

The embedded `{name}` tier: a llama-family model of {parameters / 1e6:.1f} M parameters ({shape.layers} layers of
{shape.hidden}), context 1,024 tokens, byte-level BPE of {len(tokenizer):,} tokens, weights in bfloat16. It exists so
that `make serve` and the tests run real models, each a real step up from the one below, without a network or a GPU.
It does the small tasks of the table below. Open questions it has not learnt to answer: it says something that it knows
from elsewhere, often in a word or two. Nothing it says is to be relied on.

| | |
| --- | --- |
| trained on | generated tasks (`training/curriculum/`); English: {ENGLISH} |
| its sources | {SOURCES} |
| splits | {SPLITS} |
| started from | {begun} |
| read in training | {run.tokens:,} tokens in {run.steps:,} steps |
| time | {run.seconds / 60:.0f} minutes on {device} |
| seed | {seed} |
| bits per byte on held-out English | {bits:.3f} |
| command | `python -m deployments.models.training --tier {name}` |

Exact match on the held-out set (`training/heldout.jsonl`, {len(items)} tasks with values and phrasings never trained
on), greedy, in percent:

{table(outcomes)}

Answers by greedy decoding, unedited:

{samples}
"""


def ancestors(shape: Shape) -> list[str]:
    """Whose weights it began with, and theirs before."""
    source = shape.grown_from
    return [] if source is None else [source, *ancestors(SHAPES[source])]


def quoted(question: str, reply: str) -> str:
    """A question and the reply as a quotation, line by line."""
    lines = [f"**{question}**", "", *reply.strip().split("\n")]
    return "\n".join(f"> {line}".rstrip() for line in lines)


def table(outcomes: Sequence[Outcome]) -> str:
    """Families down, levels across."""
    lines = ["| family | " + " | ".join(f"level {level}" for level in LEVELS) + " | all |"]
    lines.append("| --- |" + " ---: |" * (len(LEVELS) + 1))
    for family in (*FAMILIES, None):
        mine = [outcome for outcome in outcomes if family in (None, outcome.item.family)]
        cells = [score(o for o in mine if level in (None, o.item.level)).share for level in (*LEVELS, None)]
        lines.append(f"| {family or '**all**'} | " + " | ".join(f"{100 * cell:.1f}" for cell in cells) + " |")
    return "\n".join(lines)
