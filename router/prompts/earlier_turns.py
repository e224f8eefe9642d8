"""The earlier turns of a conversation, which a safety policy may leave out, each as a whole. Pure.

A turn is a message of the user with the answers, calls and results up to the next one, as in ``conversation_units``.
What is left is a valid conversation: calls go with their results, and the messages of the user and of the assistant
alternate as before.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from engine.api import Conversation
from router.inference_request import InferenceRequest
from router.prompts.conversation_units import last_user_place, units_of
from router.prompts.prompt_parts import fixed_places


def earlier_turns(request: InferenceRequest) -> Mapping[int, int]:
    """Returns the number of the turn of each message, by its index, that is in an earlier turn of the request's
    conversation; empty for a request that is no conversation.

    No such turn has system and developer messages, those of a stored prompt, retrieved context, and what comes before
    the first message of the user. The last message of the user begins the last turn, which is no earlier one. Nor is a
    turn one whose calls have results after that message.
    """
    conversation = request.prompts[0] if len(request.prompts) == 1 else None
    if not isinstance(conversation, Conversation):
        return {}
    fixed = fixed_places(request, request.context_text)
    question = last_user_place(conversation.messages, fixed)
    if question is None:
        return {}
    units = units_of(conversation.messages, fixed)
    last = {unit.turn for unit in units if unit.places[-1] >= question}
    earlier = (unit for unit in units if unit.turn not in (0, *last) and not unit.pinned)
    return {place: unit.turn for unit in earlier for place in unit.places}


def without_turns(request: InferenceRequest, turns: Mapping[int, int], dropped: Collection[int]) -> InferenceRequest:
    """Returns ``request`` without the messages of the turns ``dropped``. ``turns`` is as ``earlier_turns`` returns it
    for a request with the same messages, whose texts may have been others."""
    conversation = request.prompts[0] if dropped else None
    if not isinstance(conversation, Conversation):
        return request
    messages = enumerate(conversation.messages)
    left = tuple(message for place, message in messages if turns.get(place) not in dropped)
    return replace(request, prompts=[replace(conversation, messages=left)])
