"""``trim``: drops the oldest turns of a conversation, whole, until it fits. Pure."""

from __future__ import annotations

from router.prompts.conversation_units import droppable, units_of
from router.prompts.prompt_size import message_characters
from router.prompts.shortened_conversation import ShortenedConversation, ShorteningTask


def trim(task: ShorteningTask) -> ShortenedConversation | None:
    """Returns the conversation without its oldest turns, as many as needed to make it fit; None if it does not fit even
    without all of them. Within the last turn, the oldest tool calls are dropped together with their results."""
    sizes = [message_characters(message) for message in task.messages]
    size, dropped = sum(sizes), set[int]()
    for group in droppable(units_of(task.messages, task.fixed)):
        if size <= task.spare:
            break
        size -= sum(sizes[place] for place in group)
        dropped |= set(group)
    if size > task.spare:
        return None
    kept = ShortenedConversation.whole(task).contents
    return ShortenedConversation(task, {place: content for place, content in kept.items() if place not in dropped})
