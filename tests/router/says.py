"""What a model says in a test, and what it reads, behind a guard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.api import Conversation, GenerationRequest
from tests.router.guarded import Guarded, SettlingBackend

TOOL = {"type": "function", "function": {"name": "send", "parameters": {"type": "object", "properties": {}}}}


class Says(SettlingBackend):
    """Answers with ``pieces``, a delta each, or with deltas of ``size`` characters; ``{prompt}`` in them stands for the
    last message that it has read."""

    def __init__(self, *pieces: str, size: int = 0) -> None:
        super().__init__()
        self._pieces = pieces
        self._size = size

    def _words(self, request: GenerationRequest) -> Sequence[str]:
        pieces = [piece.replace("{prompt}", read(request)) for piece in self._pieces]
        if not self._size:
            return pieces
        text = "".join(pieces)
        return [text[place : place + self._size] for place in range(0, len(text), self._size)]


def read(request: GenerationRequest) -> str:
    """The last text of a request, as the model reads it."""
    prompt = request.prompt
    return prompt.messages[-1].content if isinstance(prompt, Conversation) else str(prompt)


def reads(guarded: Guarded, text: str, **more: Any) -> str:
    """What the model reads where a user says ``text``."""
    assert guarded.ask(text, **more).status_code == 200
    return read(guarded.served.backend.requests[-1])
