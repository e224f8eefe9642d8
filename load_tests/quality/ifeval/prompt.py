"""IFEval's prompts, read from the file in which they are published, packed or not."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.api import Message
from load_tests.quality.ifeval.instruction import Instruction
from load_tests.quality.question import QuestionSet, read_questions


@dataclass(frozen=True, slots=True)
class Verdict:
    """Which of a prompt's instructions an answer follows, in their order."""

    strict: tuple[bool, ...]
    loose: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class IfevalPrompt:
    """A prompt with one to three instructions. An answer is right if it follows all of them, strictly."""

    id: str
    messages: tuple[Message, ...]
    instructions: tuple[Instruction, ...]

    @property
    def family(self) -> str:
        """The kind of the first instruction, by which a subset is drawn."""
        return self.instructions[0].group

    @property
    def level(self) -> int:
        """How many instructions there are to follow."""
        return len(self.instructions)

    def accepts(self, reply: str) -> bool:
        """Whether every instruction is followed strictly."""
        return all(instruction.followed(reply) for instruction in self.instructions)

    def judge(self, reply: str) -> Verdict:
        """Strictly and loosely, instruction by instruction."""
        return Verdict(
            strict=tuple(instruction.followed(reply) for instruction in self.instructions),
            loose=tuple(instruction.loosely_followed(reply) for instruction in self.instructions),
        )

    def notes(self, reply: str) -> dict[str, Any]:
        """The instructions, and which are followed."""
        verdict = self.judge(reply)
        return {
            "instructions": [instruction.id for instruction in self.instructions],
            "strict": list(verdict.strict),
            "loose": list(verdict.loose),
        }


def read_ifeval(path: Path) -> QuestionSet[IfevalPrompt]:
    """Reads lines of ``key``, ``prompt``, ``instruction_id_list`` and ``kwargs``, an object for each instruction; in it
    a null is an argument that is not there. Raises OSError, and ValueError for what is no such file."""
    content = path.read_bytes()
    try:
        unpacked = gzip.decompress(content) if path.suffix == ".gz" else content
    except EOFError:
        raise ValueError(f"{path} ends too early") from None
    return read_questions(path, unpacked, _prompt)


def _prompt(row: dict[str, Any]) -> IfevalPrompt:
    pairs = zip(row["instruction_id_list"], row["kwargs"], strict=True)
    instructions = tuple(
        Instruction(str(name), {key: value for key, value in arguments.items() if value is not None})
        for name, arguments in pairs
    )
    if not instructions:
        raise ValueError("a prompt has at least one instruction")
    return IfevalPrompt(str(row["key"]), (Message("user", str(row["prompt"])),), instructions)
