"""``ContextOverflow``: applies the policies for a conversation that does not fit the context of its tier, or is
longer than the settings allow. Pure.

A router only estimates the size of a prompt. If the estimate says that a conversation fits, it is sent whole; if the
engine then refuses it as too long, it is shortened with a corrected estimate (``after_refusal``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from engine.api import Conversation
from router.config.prompts import OverflowConfig, OverflowPolicy, PromptsConfig
from router.errors import InvalidRequestError
from router.inference_request import InferenceRequest
from router.prompt_report import PromptReport
from router.prompts.compress import compress
from router.prompts.prompt_parts import fixed_places
from router.prompts.prompt_size import TokensPerCharacter, prompt_characters
from router.prompts.retrieve_turns import retrieve
from router.prompts.shortened_conversation import ShortenedConversation, ShorteningTask
from router.prompts.trim import trim

SHORTEN: Mapping[OverflowPolicy, Callable[[ShorteningTask], ShortenedConversation | None]] = {
    "trim": trim,
    "compress": compress,
    "retrieve": retrieve,
}
SAFETY_FACTORS = (1.05, 1.5, 3.0)
"""By how much more than the engine's refusal shows the true size is taken to be, at each further try."""
AUTO: tuple[OverflowPolicy, ...] = ("trim",)
"""What ``truncation: auto`` means where the settings say nothing."""


@dataclass(frozen=True, slots=True)
class TierRoom:
    """The context length of a tier and the token estimate for it. ``context_length`` is in tokens, None while no
    replica has reported it."""

    context_length: int | None
    measure: TokensPerCharacter


@dataclass(frozen=True, slots=True)
class Fitted:
    """The request as it is sent, and the tier that takes it."""

    request: InferenceRequest
    tier: str


class ContextOverflow:
    """Makes conversations fit their tiers by the policies of a router's settings."""

    def __init__(self, config: PromptsConfig) -> None:
        self._config = config

    def fit(
        self, request: InferenceRequest, tenant: str, tier: str, tiers: Mapping[str, TierRoom], context: str = ""
    ) -> Fitted:
        """Returns ``request`` made to fit ``tier``, or unchanged with a larger tier. ``tiers`` are those that the key
        may use, weakest first. ``context`` is the message with retrieved passages, which is never shortened.

        A request that no policy makes fit is returned as it is: the engine has the last word, by exact counts. Raises
        InvalidRequestError if it has more than ``max_prompt_tokens`` tokens.
        """
        settings, here = self._settings(request, tenant, tier), tiers[tier]
        size = max(map(here.measure.prompt_tokens, request.prompts), default=0)
        room = prompt_room(here.context_length, request.sampling.max_tokens, settings)
        if room is None or size <= room:
            return Fitted(request, tier)
        for policy in settings.policies:
            if policy == "larger_tier":
                taker = self._larger(request, tenant, tier, tiers)
                if taker is not None:
                    return Fitted(_moved(request, tier, size), taker)
            elif (made := _shortened(request, policy, here.measure, room, context)) is not None:
                return Fitted(made, tier)
        limit = settings.max_prompt_tokens
        if limit is not None and size > limit:
            raise _too_long(size, limit, request.prompt_field)
        return Fitted(request, tier)

    def applies(self, request: InferenceRequest, tenant: str, tier: str) -> bool:
        """Returns whether ``fit`` may change the request or the tier."""
        settings = self._settings(request, tenant, tier)
        return bool(settings.policies) or settings.max_prompt_tokens is not None

    def may_move(self, request: InferenceRequest, tenant: str, tier: str) -> bool:
        """Returns whether ``fit`` may return another tier."""
        return "larger_tier" in self._settings(request, tenant, tier).policies

    def after_refusal(
        self,
        request: InferenceRequest,
        tenant: str,
        tier: str,
        here: TierRoom,
        tries: int,
        context: str = "",
        prompt_tokens: int | None = None,
    ) -> InferenceRequest | None:
        """Returns ``request`` shortened, after the engine has refused it as too long ``tries`` times; None if that is
        not allowed or does not help.

        The refusal shows that the prompt has more tokens than the room, or ``prompt_tokens`` if the engine has counted
        them. So a character takes more tokens than was estimated. ``here`` is the tier's room; ``context`` is the
        message with retrieved passages, which is never shortened.
        """
        settings = self._settings(request, tenant, tier)
        policies = [policy for policy in settings.policies if policy != "larger_tier"]
        room = prompt_room(here.context_length, request.sampling.max_tokens, settings)
        if not policies or room is None or here.context_length is None or tries > len(SAFETY_FACTORS):
            return None
        shown = max(room, prompt_tokens or 0) / max(1, sum(map(prompt_characters, request.prompts)))
        factor = SAFETY_FACTORS[tries - 1]
        measure = TokensPerCharacter(max(here.measure.mean, shown), max(here.measure.high, shown) * factor)
        made = (_shortened(request, policy, measure, room, context) for policy in policies)
        return next((each for each in made if each is not None), None)

    def may_shorten(self, request: InferenceRequest, tenant: str, tier: str) -> bool:
        """Returns whether ``after_refusal`` may return a shortened request."""
        policies = self._settings(request, tenant, tier).policies
        return _is_conversation(request) and any(policy != "larger_tier" for policy in policies)

    def _settings(self, request: InferenceRequest, tenant: str, tier: str) -> OverflowConfig:
        """Returns the settings for a request, which may forbid that it is changed or ask for it."""
        settings = self._config.overflow_of(tenant, tier)
        if request.truncation == "disabled":
            return settings.model_copy(update={"policies": ()})
        if request.truncation == "auto" and not settings.policies:
            return settings.model_copy(update={"policies": AUTO})
        return settings

    def _larger(self, request: InferenceRequest, tenant: str, tier: str, tiers: Mapping[str, TierRoom]) -> str | None:
        """Returns the weakest other tier that has room for each prompt as it is; None without one."""
        for name, other in tiers.items():
            settings = self._settings(request, tenant, name)
            room = prompt_room(other.context_length, request.sampling.max_tokens, settings)
            if name == tier or other.context_length is None or room is None:
                continue
            if all(other.measure.fits(prompt, room) for prompt in request.prompts):
                return name
        return None


def prompt_room(context_length: int | None, max_tokens: int | None, settings: OverflowConfig) -> int | None:
    """Returns the maximum number of prompt tokens that leaves room for the answer in a context of ``context_length``
    tokens (None: unknown). The answer takes ``max_tokens``; None: the number in ``settings``. Returns None if the
    context length is unknown and the settings have no limit."""
    limit = settings.max_prompt_tokens
    if context_length is None:
        return limit
    answer = min(settings.answer_tokens, context_length // 4) if max_tokens is None else max_tokens
    room = max(0, context_length - answer)
    return room if limit is None else min(room, limit)


def _shortened(
    request: InferenceRequest, policy: OverflowPolicy, measure: TokensPerCharacter, room: int, context: str
) -> InferenceRequest | None:
    """Returns ``request`` with its conversation made to fit ``room`` tokens by ``policy``; None if it cannot."""
    conversation = request.prompts[0]
    if not _is_conversation(request) or not isinstance(conversation, Conversation):
        return None
    made = SHORTEN[policy](ShorteningTask(conversation, measure.room(room), fixed_places(request, context)))
    if made is None:
        return None
    earlier = request.report
    before = measure.tokens(prompt_characters(conversation))
    report = PromptReport(
        policy=policy,
        removed=made.removed(measure) if earlier is None else earlier.removed.plus(made.removed(measure)),
        before=before if earlier is None else max(before, earlier.before),
        after=measure.tokens(made.characters),
        tier=None if earlier is None else earlier.tier,
    )
    return replace(request, prompts=[made.conversation], report=report)


def _is_conversation(request: InferenceRequest) -> bool:
    return len(request.prompts) == 1 and isinstance(request.prompts[0], Conversation)


def _moved(request: InferenceRequest, tier: str, tokens: int) -> InferenceRequest:
    return replace(request, report=PromptReport(policy="larger_tier", before=tokens, after=tokens, tier=tier))


def _too_long(tokens: int, limit: int, field: str) -> InvalidRequestError:
    message = (
        f"Prompts have at most {limit} tokens here. However, your prompt has about {tokens} tokens. "
        "Shorten it, or send fewer messages."
    )
    return InvalidRequestError(message, "context_length_exceeded", field)


def limits_of(
    tiers: Sequence[str], lengths: Mapping[str, int | None], ratio: Callable[[str], tuple[float, float]]
) -> dict[str, TierRoom]:
    """Returns the tiers in the form that ``ContextOverflow.fit`` takes. ``ratio`` returns the tokens per character on a
    tier: the mean, and a value that few texts exceed."""
    return {tier: TierRoom(lengths.get(tier), TokensPerCharacter(*ratio(tier))) for tier in tiers}
