"""The earlier turns of a conversation, which a safety policy may leave out, each as a whole. Pure.

A turn is a message of the user with the answers, calls and results up to the next one, as in ``conversation_units``.
What is left is a valid conversation: calls go with their results, and since a turn that is kept begins with its message
of the user, no two messages of the assistant come together that did not before.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from engine.api import Conversation
from router.inference_request import InferenceRequest
from router.prompts.conversation_units import units_of
from router.prompts.prompt_parts import fixed_places


def earlier_turns(request: InferenceRequest) -> Mapping[int, int]:
    """Returns the number of the turn of each message, by its index, that is in an earlier turn of the request's
    conversation; empty for a request that is no conversation.

    System and developer messages, those of a stored prompt, retrieved context, and what comes before the first message
    of the user belong to no turn. The last message of the user begins the last turn, which is not an earlier one. A
    turn is left out if one of its calls has its result after the next message of the user: without that result, two
    messages of the assistant could follow each other.
    """
    conversation = request.prompts[0] if len(request.prompts) == 1 else None
    if not isinstance(conversation, Conversation):
        return {}
    fixed = fixed_places(request, request.context_text)
    units = units_of(conversation.messages, fixed)
    asked = [
        place for place, message in enumerate(conversation.messages) if place not in fixed and message.role == "user"
    ]
    ends = dict(enumerate(asked))  # turn n ends where the user's message with the index n begins turn n + 1
    whole = {unit.turn for unit in units} - {unit.turn for unit in units if unit.places[-1] >= ends.get(unit.turn, 0)}
    earlier = (unit for unit in units if unit.turn in whole - {0} and not unit.pinned)
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
