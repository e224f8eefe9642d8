"""Conversations of any shape, for tests of what shortens them."""

from __future__ import annotations

from hypothesis import strategies as st

from engine.api import Message, ToolCall

WORDS = ("alpha", "beta", "gamma", "delta", "price", "harbour", "invoice", "Zürich", "漢字")
sentences = st.lists(st.sampled_from(WORDS), min_size=1, max_size=8).map(
    lambda words: " ".join(words).capitalize() + ". "
)
blocks = st.one_of(
    st.lists(sentences, min_size=1, max_size=5).map("".join),
    st.lists(sentences, min_size=1, max_size=3).map(lambda lines: "```python\n" + "\n".join(lines) + "\n```\n"),
    st.lists(sentences, min_size=1, max_size=4).map(lambda items: "".join(f"- {item}\n" for item in items)),
    sentences.map(lambda text: f"\n## {text}\n"),
    st.just('{"a": [1, 2]}'),
    st.text(max_size=20),
)
contents = st.lists(blocks, min_size=0, max_size=4).map("\n".join)


@st.composite
def conversations(draw: st.DrawFn) -> list[Message]:
    """A conversation whose calls of tools have all their results after them, though not always at once."""
    messages: list[Message] = []
    waiting: list[str] = []
    for number in range(draw(st.integers(1, 14))):
        kind = draw(st.sampled_from(["system", "user", "assistant", "calls", "tool", "tool"]))
        if kind == "tool" and waiting:
            name = waiting.pop(draw(st.integers(0, len(waiting) - 1)))
            messages.append(Message("tool", draw(contents), tool_call_id=name))
        elif kind == "calls":
            names = [f"c{number}.{n}" for n in range(draw(st.integers(1, 2)))]
            waiting += names
            messages.append(Message("assistant", "", tuple(ToolCall("f", "{}", name) for name in names)))
        elif kind != "tool":
            messages.append(Message(kind, draw(contents)))
    messages += [Message("tool", draw(contents), tool_call_id=name) for name in waiting]
    return messages or [Message("user", draw(contents))]
