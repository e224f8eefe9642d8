"""``assemble``: puts the messages of a stored prompt before a request's own."""

from __future__ import annotations

from dataclasses import replace

from engine.api import Conversation, Message
from router.errors import InvalidRequestError
from router.inference_request import InferenceRequest
from router.prompts.prompt_template import texts_of
from router.prompts.stored_prompts import StoredPrompts


async def assemble(book: StoredPrompts, tenant: str, request: InferenceRequest) -> InferenceRequest:
    """Returns ``request`` with the messages of the stored prompt that it names before its own; unchanged if it names
    none.

    The stored messages change least from request to request, so they come first, for the engine's prefix cache. Raises
    NotFoundError for a prompt or a version that does not exist, InvalidRequestError for a request without messages, or
    that names a variable that is unknown or missing, and UnavailableError if the store does not answer or this release
    cannot read the version.
    """
    if (reference := request.template) is None:
        return request
    template = await book.template(tenant, reference.id, reference.version)
    messages = template.messages(reference.variables)
    prompts = [_prepended(prompt, messages) for prompt in request.prompts if isinstance(prompt, Conversation)]
    if len(prompts) != len(request.prompts):
        raise InvalidRequestError("A stored prompt needs messages.", "invalid_value", "prompt")
    return replace(
        request,
        prompts=prompts,
        template_version=template.name,
        template_messages=len(messages),
        template_values=tuple(texts_of(reference.variables)),
    )


def _prepended(conversation: Conversation, messages: tuple[Message, ...]) -> Conversation:
    return replace(conversation, messages=(*messages, *conversation.messages))
