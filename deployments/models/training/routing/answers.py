"""What each tier answers to a set of tasks: right or wrong, and at what cost. Kept on disk, so that a run that was
interrupted goes on and one with more tasks asks only the new ones.

A file belongs to one tier with these very weights; each line of it is one answer. It lives until someone deletes it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from tqdm import tqdm

from deployments.models.training.curriculum.task import Task
from deployments.models.training.routing.open_prompts import accepts
from engine.api import Conversation, Message, SamplingParams
from engine.completion import Completion

MAX_TOKENS = 96  # of an answer, as when quality is measured (load_tests.quality)
AT_ONCE = 128  # tasks in the engine together, and lost at most when a run is interrupted
GREEDY = SamplingParams(temperature=0.0, max_tokens=MAX_TOKENS)


@dataclass(frozen=True, slots=True)
class Answer:
    """One tier's answer to one task. Token counts are of the prompt (template included) and of what was generated."""

    right: bool
    prompt_tokens: int
    completion_tokens: int

    @property
    def tokens(self) -> int:
        """All that went through the model."""
        return self.prompt_tokens + self.completion_tokens


class Model(Protocol):
    """What answers: ``engine.engine.Engine``, or a test's."""

    def generate(self, prompts: Sequence[Conversation], params: SamplingParams) -> list[Completion]: ...


def ask(model: Model, tasks: Sequence[Task], file: Path, label: str) -> list[Answer]:
    """``model``'s answers to ``tasks``, in their order; those that ``file`` holds already are taken from there. Shows
    a progress bar named ``label``. Raises RuntimeError when the engine fails."""
    known = _read(file)
    keys = [key(task) for task in tasks]
    missing = [(k, task) for k, task in dict(zip(keys, tasks, strict=True)).items() if k not in known]
    file.parent.mkdir(parents=True, exist_ok=True)
    with (
        file.open("a", encoding="utf-8") as lines,
        tqdm(total=len(set(keys)), initial=len(set(keys)) - len(missing), desc=label, unit="task") as bar,
    ):
        for start in range(0, len(missing), AT_ONCE):
            part = missing[start : start + AT_ONCE]
            completions = model.generate([conversation(task) for _, task in part], GREEDY)
            for (k, task), completion in zip(part, completions, strict=True):
                if completion.error is not None:  # says nothing of the model, and must not be remembered
                    raise RuntimeError(f"{label}: {completion.error}")
                usage = completion.usage
                known[k] = Answer(accepts(task, completion.text), usage.prompt_tokens, usage.completion_tokens)
                lines.write(json.dumps({"task": k, **asdict(known[k])}) + "\n")
            lines.flush()
            bar.update(len(part))
    return [known[k] for k in keys]


def conversation(task: Task) -> Conversation:
    """The prompt of ``task``."""
    return Conversation(tuple(Message(turn.role, turn.content) for turn in task.turns))


def key(task: Task) -> str:
    """The same for the same question with the same right answer."""
    asked = json.dumps([[turn.role, turn.content] for turn in task.turns] + [task.answer])
    return hashlib.sha256(asked.encode()).hexdigest()[:20]


def fingerprint(model: Path) -> str:
    """Changes when anything does that decides the answers of a model directory or a GGUF file: weights, tokenizer,
    template, configs."""
    digest = hashlib.sha256()
    if model.is_file():
        with model.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:12]
    for path in sorted(model.iterdir()):
        if path.suffix in (".safetensors", ".json", ".jinja"):
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def _read(file: Path) -> dict[str, Answer]:
    """The answers in ``file``; a last line that was cut off is removed from it."""
    if not file.exists():
        return {}
    whole, _, torn = file.read_text(encoding="utf-8").rpartition("\n")
    if torn:
        file.write_text(whole + "\n" * bool(whole), encoding="utf-8")
    rows = [json.loads(line) for line in whole.splitlines()]
    return {row.pop("task"): Answer(**row) for row in rows}
