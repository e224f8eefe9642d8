"""``prompt_parts``: the parts of an assembled prompt with their sizes, for the usage details. Pure."""

from __future__ import annotations

from collections import Counter

from engine.api import Conversation
from router.inference_request import InferenceRequest
from router.prompt_report import PartCount, PromptPart
from router.prompts.conversation_units import SYSTEM_ROLES, last_user_place
from router.prompts.prompt_size import TokensPerCharacter, message_characters

ORDER = tuple(PromptPart)


def fixed_places(request: InferenceRequest, context: str = "") -> frozenset[int]:
    """Returns the indices of the messages that no policy shortens: those of the stored prompt, and the one whose
    content is ``context``. A prompt that is no conversation has none."""
    conversation = request.prompts[0]
    if not isinstance(conversation, Conversation):
        return frozenset()
    found = [n for n, message in enumerate(conversation.messages) if context and message.content == context]
    return frozenset([*range(min(request.template_messages, len(conversation.messages))), *found])


def prompt_parts(request: InferenceRequest, measure: TokensPerCharacter, context: str = "") -> tuple[PartCount, ...]:
    """Returns the parts of a request's conversation in their usual order; () if the prompt is not a conversation.
    ``context`` is the content of the message with retrieved passages; "" for none."""
    conversation = request.prompts[0] if len(request.prompts) == 1 else None
    if not isinstance(conversation, Conversation):
        return ()
    question = last_user_place(conversation.messages, fixed_places(request, context))
    messages: Counter[PromptPart] = Counter()
    characters: Counter[PromptPart] = Counter()
    for place, message in enumerate(conversation.messages):
        if place < request.template_messages:
            part = PromptPart.TEMPLATE
        elif context and message.content == context:
            part = PromptPart.CONTEXT
        elif message.role in SYSTEM_ROLES:
            part = PromptPart.SYSTEM
        else:
            part = PromptPart.LAST_TURN if question is not None and place >= question else PromptPart.CONVERSATION
        messages[part] += 1
        characters[part] += message_characters(message)
    if conversation.tools:
        messages[PromptPart.TOOLS] = len(conversation.tools)
        characters[PromptPart.TOOLS] = sum(map(len, conversation.tools))
    return tuple(PartCount(part, messages[part], measure.tokens(characters[part])) for part in ORDER if messages[part])


def assembly_of(request: InferenceRequest) -> list[dict[str, object]]:
    """Returns the messages of a request's conversation, as the chat template gets them, in OpenAI's JSON form; [] if
    the prompt is not a conversation."""
    conversation = request.prompts[0] if len(request.prompts) == 1 else None
    if not isinstance(conversation, Conversation):
        return []
    shown: list[dict[str, object]] = []
    for message in conversation.messages:
        calls = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
        further = {"name": message.name, "tool_call_id": message.tool_call_id, "tool_calls": calls or None}
        named = {name: value for name, value in further.items() if value is not None}
        shown.append({"role": message.role, "content": message.content, **named})
    return shown
