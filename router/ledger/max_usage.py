"""The largest token counts that a request can reach, estimated before it runs, and what that estimate is at least once
passages are added. Pure."""

from __future__ import annotations

from engine.api import Conversation, Prompt, Usage
from router.config.prices import PriceConfig
from router.errors import InvalidRequestError
from router.inference_request import InferenceRequest
from router.ledger.price import cost_of, money

BYTES_PER_TOKEN = 3
"""Bytes of UTF-8 that become one token. English takes about 4. A lower value makes the estimate conservative."""
DEFAULT_CONTEXT = 131_072  # tokens; of a model whose context length no replica has reported yet
TOKENS_PER_MESSAGE = 8  # that a chat template adds to each message


def prompt_tokens(prompt: Prompt) -> int:
    """Returns the estimated number of tokens of ``prompt``. For token ids it is exact."""
    if isinstance(prompt, tuple):
        return len(prompt)
    if isinstance(prompt, Conversation):
        texts = [text for message in prompt.messages for text in message.texts]
        size = sum(len(text.encode("utf-8", "surrogatepass")) for text in (*texts, *prompt.tools))
        return size // BYTES_PER_TOKEN + TOKENS_PER_MESSAGE * (len(prompt.messages) + 1)
    return len(prompt.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN + 1


def largest_usage(request: InferenceRequest, context_length: int | None) -> Usage:
    """Returns the most tokens that ``request`` can use. The prompt's tokens are estimated, and none of them counts as
    cached.

    Without ``max_tokens``, an answer may fill the context of ``context_length`` tokens. DEFAULT_CONTEXT is used while
    the length is unknown (None).
    """
    sampling, prompts = request.sampling, [prompt_tokens(prompt) for prompt in request.prompts]
    limit = DEFAULT_CONTEXT if context_length is None else context_length
    rooms = [max(0, limit - tokens) for tokens in prompts]
    answers = [room if sampling.max_tokens is None else min(room, sampling.max_tokens) for room in rooms]
    return Usage(sum(prompts), sum(answers) * sampling.side_by_side, 0)


def least_estimate(request: InferenceRequest, context_length: int | None, context_tokens: int, *, whole: bool) -> Usage:
    """Returns what ``largest_usage`` is at least once passages of at most ``context_tokens`` tokens are in the prompts.

    An answer that may fill the context has less room beside them, and output may cost more than input; while the length
    of the context is unknown, no answer counts. ``whole``: the prompts are not shortened to make room; else none of
    their tokens counts.
    """
    prompts = [prompt_tokens(prompt) for prompt in request.prompts]
    most = request.sampling.max_tokens
    rooms = [0 if context_length is None else max(0, context_length - each - context_tokens) for each in prompts]
    answers = [room if most is None else min(room, most) for room in rooms]
    return Usage(sum(prompts) if whole else 0, sum(answers) * request.sampling.side_by_side, 0)


def check_max_cost(request: InferenceRequest, price: PriceConfig | None, usage: Usage) -> None:
    """Raises InvalidRequestError if ``usage``, the estimate for ``request``, costs more than the request's
    ``max_cost``. ``price`` None: the tier costs nothing."""
    if request.max_cost is None:
        return
    estimate = money(cost_of(price, usage))
    if estimate > request.max_cost:
        message = (
            f"The request may cost up to {estimate:.9g} ({usage.prompt_tokens} tokens of input, "
            f"{usage.completion_tokens} of output), more than max_cost, {request.max_cost:.9g}. "
            "A lower max_tokens costs less."
        )
        raise InvalidRequestError(message, "max_cost_exceeded", "max_cost")
