"""``retrieve``: replaces older turns by those of their passages that are most relevant to the last turn. Pure.

The newest turns that fit into half of the room stay whole. The passages are put into the user's last message, before
its text, so that the messages before it remain a prefix that the engine has cached.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from router.prompts.compress import compress, grain_of, question_of
from router.prompts.conversation_units import droppable, last_user_place, units_of
from router.prompts.prompt_size import message_characters
from router.prompts.relevance import Relevance, relevance
from router.prompts.shortened_conversation import ShortenedConversation, ShorteningTask
from router.prompts.text_segments import segments_of
from router.prompts.trim import trim

MIN_PASSAGE, MAX_PASSAGE = 120, 600  # characters up to which segments are put together; a quarter of the room
HEAD = "Excerpts from earlier in this conversation, which may help with what follows:"
TAIL = "End of the excerpts."
SPARE_SHARE = 0.5  # of the room, for the newest turns


@dataclass(frozen=True, slots=True)
class _Passage:
    """Segments of one message that stand together. ``order`` is its place among all passages."""

    order: int
    role: str
    text: str

    @property
    def shown(self) -> str:
        """The passage between marks, which its text cannot close: what a tool has said must not speak as the user."""
        text = self.text.strip().replace("<excerpt", "< excerpt").replace("</excerpt", "< /excerpt")
        return f"<excerpt from={self.role}>\n{text}\n</excerpt>"


def retrieve(task: ShorteningTask, score: Relevance = relevance) -> ShortenedConversation | None:
    """Returns the conversation of ``task``, whole if it fits, else with passages instead of older turns; None if it
    does not fit even so. ``score`` rates passages by their relevance to the last turn.

    Where there is no room for a passage, older turns are left out without one. Where the user's last message alone is
    too long, its own passages are chosen as ``compress`` chooses sentences.
    """
    if (as_it_is := ShortenedConversation.whole(task)).fits:
        return as_it_is
    question = last_user_place(task.messages, task.fixed)
    if question is None:
        return None
    groups = droppable(units_of(task.messages, task.fixed))
    sizes = [message_characters(message) for message in task.messages]
    left = task.spare - sum(sizes) + sum(sizes[place] for group in groups for place in group)
    if left < 0:
        return compress(task, score)
    frame = len(HEAD) + len(TAIL) + 4
    if left < frame:
        return trim(task)
    left -= frame
    whole, budget = set[int](), int(left * SPARE_SHARE)
    for group in reversed(groups):
        size = sum(sizes[place] for place in group)
        if size > budget:
            break
        budget -= size
        left -= size
        whole |= set(group)
    length = max(MIN_PASSAGE, min(MAX_PASSAGE, left // 4))
    passages = _passages(task, [place for group in groups for place in group if place not in whole], length)
    chosen = _chosen(passages, left, score(question_of(task), [each.text for each in passages]))
    gone = {place for group in groups for place in group} - whole
    contents = {n: each.content for n, each in enumerate(task.messages) if n not in gone}
    if chosen:
        shown = "\n".join(each.shown for each in chosen)
        contents[question] = f"{HEAD}\n{shown}\n{TAIL}\n\n{contents[question]}"
    made = ShortenedConversation(task, contents)
    return made if made.fits else None


def _passages(task: ShorteningTask, places: Sequence[int], length: int) -> list[_Passage]:
    found: list[_Passage] = []
    for place in sorted(places):
        message, text = task.messages[place], ""
        for segment in segments_of(message.content, grain_of(task)):
            if text and len(text) + len(segment.text) > length:
                found.append(_Passage(len(found), message.role, text))
                text = ""
            text += segment.text
        if text.strip():
            found.append(_Passage(len(found), message.role, text))
    return found


def _chosen(passages: Sequence[_Passage], room: int, scores: Sequence[float]) -> list[_Passage]:
    """Returns the passages of the highest scores that fit ``room``, in their order. Passages that have nothing to do
    with the question are left out."""
    chosen: list[_Passage] = []
    for score, passage in sorted(zip(scores, passages, strict=True), key=lambda each: (-each[0], -each[1].order)):
        size = len(passage.shown) + 1
        if score > 0 and size <= room:
            room -= size
            chosen.append(passage)
    return sorted(chosen, key=lambda each: each.order)
