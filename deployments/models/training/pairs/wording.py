"""The word lists of the rules, and the frames that say one thing in several ways."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

WORDS: Final[dict[str, Any]] = json.loads(Path(__file__).with_name("words.json").read_text(encoding="utf-8"))


def couples(name: str) -> list[tuple[str, str]]:
    """Returns the word pairs of a list."""
    return [(first, second) for first, _, second in (entry.partition("/") for entry in WORDS[name])]


FAMILIES: Final[dict[str, list[str]]] = WORDS["families"]
"""Words of one kind, each of which makes another question in the place of another."""

OPPOSITES: Final = couples("opposites") + couples("prefixed") + couples("qualities")

HOW: Final = (
    "How do I {x}?",
    "How can I {x}?",
    "How to {x}?",
    "What is the best way to {x}?",
    "Can you explain how to {x}?",
    "Show me how to {x}.",
    "I want to {x}. How does that work?",
    "Steps to {x}",
    "What are the steps to {x}?",
    "Please tell me how to {x}",
    "how would one {x}",
    "I need help: how do I {x}?",
    "What do I have to do to {x}?",
    "Is there a way to {x}?",
    "Give me instructions to {x}.",
    "Walk me through how to {x}.",
    "Could you help me {x}?",
    "Any idea how to {x}?",
    "What should I do to {x}?",
    "guide to {x}: how?",
    "I'm trying to {x}, what do I do?",
    "Explain step by step how to {x}.",
    "Help me {x}",
    "Tell me the way to {x}.",
)
"""Frames round an action: whoever asks in one asks in another."""

WHAT: Final = (
    "What is {x}?",
    "What's {x}?",
    "Tell me {x}.",
    "Can you tell me {x}?",
    "I'd like to know {x}.",
    "Please give me {x}",
    "Do you know {x}?",
    "{x}?",
    "I need to know {x}",
    "Could you find out {x}?",
    "what would be {x}",
)
"""Frames round a noun phrase."""

WRITE: Final = (
    "Write {x}.",
    "Please write {x}",
    "Can you write {x}?",
    "Compose {x}.",
    "Create {x} for me.",
    "I need {x}.",
    "Generate {x}",
    "Draft {x}, please.",
    "Could you come up with {x}?",
    "I'd like you to write {x}.",
    "Give me {x}.",
)
"""Frames round a text to be written."""

AROUND: Final = (
    "{x}",
    "Please answer: {x}",
    "Quick question: {x}",
    "Hi, {x}",
    "Hello! {x}",
    "{x} Thanks!",
    "{x} Thank you.",
    "Hey, {x}",
    "I have a question. {x}",
    "I was wondering: {x}",
    "Can you help me? {x}",
    "{x} Please explain.",
    "question - {x}",
    "Sorry to bother you, {x}",
    "{x} I would like to know.",
    "Just curious, {x}",
)
"""What people put round a question without changing it."""
