"""``ShortenedConversation``: a shortened conversation, and the sizes of the texts that were left out. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from engine.api import Conversation, Message
from router.prompt_report import Removed
from router.prompts.prompt_size import TokensPerCharacter, message_characters, other_characters


@dataclass(frozen=True, slots=True)
class ShorteningTask:
    """A conversation that has to fit ``room`` characters. ``fixed`` are the indices of messages that must not be
    changed: those of a template and retrieved context."""

    conversation: Conversation
    room: int
    fixed: frozenset[int] = frozenset()

    @property
    def messages(self) -> Sequence[Message]:
        """The messages of the conversation."""
        return self.conversation.messages

    @property
    def spare(self) -> int:
        """The room that the messages may fill, in characters: ``room`` without tools, template variables and the
        answer's opening."""
        return self.room - other_characters(self.conversation)


@dataclass(frozen=True, slots=True)
class ShortenedConversation:
    """A shortened conversation. ``contents`` has the new content of each message that stays, by its index in the former
    conversation."""

    task: ShorteningTask
    contents: Mapping[int, str]

    @property
    def conversation(self) -> Conversation:
        """The conversation with the messages that stay, in their order."""
        messages = tuple(
            message if message.content == self.contents[place] else replace(message, content=self.contents[place])
            for place, message in enumerate(self.task.messages)
            if place in self.contents
        )
        return replace(self.task.conversation, messages=messages)

    @classmethod
    def whole(cls, task: ShorteningTask) -> ShortenedConversation:
        """Returns the unshortened conversation of ``task``."""
        return cls(task, {place: message.content for place, message in enumerate(task.messages)})

    @property
    def characters(self) -> int:
        """The size of the new conversation, in characters."""
        changed = self.conversation
        return other_characters(changed) + sum(map(message_characters, changed.messages))

    @property
    def fits(self) -> bool:
        """Whether the new conversation fits its room."""
        return self.characters <= self.task.room

    def removed(self, measure: TokensPerCharacter) -> Removed:
        """Returns the sizes of the texts that were left out, in estimated tokens."""
        messages = self.task.messages
        dropped = [place for place in range(len(messages)) if place not in self.contents]
        changed = [place for place, content in self.contents.items() if content != messages[place].content]
        before = sum(message_characters(messages[place]) for place in changed)
        saved = sum(len(messages[place].content) - len(self.contents[place]) for place in changed)
        return Removed(
            len(dropped),
            measure.tokens(sum(message_characters(messages[place]) for place in dropped)),
            len(changed),
            measure.tokens(before),
            measure.tokens(before - saved),
        )
