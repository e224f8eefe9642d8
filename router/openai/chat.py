"""Requests of /v1/chat/completions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property, partial
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from engine.api import MAX_GRAMMAR_CHARS, MAX_JSON_DEPTH, MAX_LOGPROBS, Conversation, Grammar, Priority, is_plain_json
from router.errors import RefusalError
from router.inference_request import InferenceRequest, TextParsing
from router.openai.chat_writer import ChatWriter
from router.openai.common_request import GenerationFields
from router.openai.errors import error_body
from router.openai.messages import ChatMessage, ContentField, few_members
from router.openai.response_format import ResponseFormat, grammar_of_format
from router.openai.tools import MAX_TOOLS, Tool, ToolChoice, schema_characters, unenforced, use_of
from router.openai.validation import (
    MAX_LIST_ITEMS,
    Integer,
    StrictModel,
    Unsupported,
    ValidText,
    few_pairs,
    not_yet,
    parse,
    short_json,
)
from router.tool_grammar import ToolUse

MAX_TEMPLATE_VARIABLES = 64
MAX_VARIABLES_CHARS = 65_536  # characters of all of them as JSON

SERVICE_CLASSES = {"flex": Priority.BATCH, "priority": Priority.INTERACTIVE}
"""The class of a request by its service tier; others have the standard one."""


def _are_variables(values: dict[str, Any]) -> dict[str, Any]:
    if len(values) > MAX_TEMPLATE_VARIABLES:
        raise ValueError(f"must have at most {MAX_TEMPLATE_VARIABLES} members")
    short_json(values, MAX_VARIABLES_CHARS)
    if not is_plain_json(values):
        raise ValueError(f"must be nested at most {MAX_JSON_DEPTH} deep, and hold no half of a surrogate pair")
    return values


class Prediction(StrictModel):
    """Text that the answer is expected to have much of."""

    type: Literal["content"]
    content: ContentField


class PromptCacheOptions(StrictModel):
    mode: Literal["implicit", "explicit"] | None = None
    ttl: ValidText | None = None


class ChatRequest(GenerationFields):
    """POST /v1/chat/completions."""

    WITHOUT_EFFECT: ClassVar[Sequence[str]] = (
        *GenerationFields.WITHOUT_EFFECT,
        "metadata",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "store",
        "verbosity",
    )

    messages: Annotated[
        list[ChatMessage],
        Field(min_length=1, max_length=MAX_LIST_ITEMS, fail_fast=True),
        BeforeValidator(few_members),
    ]
    max_completion_tokens: Integer | None = Field(None, ge=1, le=2**31)
    response_format: ResponseFormat | None = None
    service_tier: Literal["auto", "default", "flex", "priority"] | None = None
    logprobs: bool | None = None
    top_logprobs: Integer | None = Field(None, ge=0, le=MAX_LOGPROBS)
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None  # without tools it asks for nothing
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: Annotated[dict[ValidText, Any], AfterValidator(_are_variables)] | None = None
    include_reasoning: bool | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    # In the header x-manta-ignored.
    verbosity: Literal["low", "medium", "high"] | None = None
    prediction: Prediction | None = None
    store: bool | None = None
    metadata: Annotated[dict[ValidText, ValidText], BeforeValidator(few_pairs)] | None = None
    safety_identifier: ValidText | None = None
    prompt_cache_key: ValidText | None = None
    prompt_cache_options: PromptCacheOptions | None = None
    prompt_cache_retention: Literal["in_memory", "in-memory", "24h"] | None = None
    # Refused.
    modalities: Annotated[Any, not_yet(["text"])] = None
    functions: Annotated[Any, not_yet([])] = None
    function_call: Unsupported = None
    audio: Unsupported = None
    web_search_options: Unsupported = None
    moderation: Unsupported = None

    @model_validator(mode="after")
    def _logprobs_are_wanted(self) -> Self:
        if self.top_logprobs is not None and not self.logprobs:
            raise PydanticCustomError("misplaced", "needs 'logprobs' to be true", {"name": "top_logprobs"})
        return self

    @model_validator(mode="after")
    def _tools_are_known(self) -> Self:
        names = [tool.function.name for tool in self.tools or ()]
        if len(set(names)) < len(names):
            raise PydanticCustomError("misplaced", "has two tools of one name", {"name": "tools"})
        if self.tool_choice is not None and not names:
            raise PydanticCustomError("misplaced", "needs 'tools'", {"name": "tool_choice"})
        if names and self._schema_characters > MAX_GRAMMAR_CHARS:
            message = f"has schemas of more than {MAX_GRAMMAR_CHARS} characters, with the form of the answer"
            raise PydanticCustomError("misplaced", message, {"name": "tools"})
        if self.tool_use is not None:
            for name, form in self.forms.items():
                if form.kind == "lark":
                    message = "cannot be a grammar in Lark's syntax where tools may be called"
                    raise PydanticCustomError("misplaced", message, {"name": name})
        return self

    @model_validator(mode="after")
    def _prompt_ends_in_one_way(self) -> Self:
        if self.continue_final_message and self.add_generation_prompt:
            message = "excludes 'add_generation_prompt'"
            raise PydanticCustomError("misplaced", message, {"name": "continue_final_message"})
        return self

    def _asked_forms(self) -> dict[str, Grammar | None]:
        """OpenAI's own field beside those of vLLM."""
        return super()._asked_forms() | {"response_format": grammar_of_format(self.response_format)}

    @property
    def _schema_characters(self) -> int:
        return schema_characters(self.tools or ()) + sum(len(form.source) for form in self.forms.values())

    @cached_property
    def tool_use(self) -> ToolUse | None:
        """What the answer may call. Raises PydanticCustomError for a choice that is none of the tools."""
        return use_of(self.tools or (), self.tool_choice, self.parallel_tool_calls, self.form)

    @cached_property
    def grammar(self) -> Grammar | None:
        """Of calls and text, where there are tools."""
        return self.form if self.tool_use is None else self.tool_use.grammar

    @property
    def parsing(self) -> TextParsing:
        """Text of a given form is taken as it is: what looks like reasoning in it is a part of it."""
        use = self.tool_use
        reasoning = self.grammar is None if use is None else use.text_before_calls
        return TextParsing(reasoning, use is not None, use is None or use.text_before_calls)

    @property
    def ignored(self) -> tuple[str, ...]:
        """With what Anthropic's clients send, forms that no answer can have, and keywords that are not enforced."""
        fields = [*super().ignored]
        if any(message.caches for message in self.messages):
            fields.append("messages.cache_control")
        if any(tool.caches for tool in self.tools or ()):
            fields.append("tools.cache_control")
        if self.tool_use is not None:
            fields += self.forms if self.tool_use.required else ()
            fields += unenforced(self.tools or (), self.tool_use)
        return tuple(fields)

    @property
    def answer_limit(self) -> int | None:
        """The most tokens of the answer, by whichever of its two names."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def wanted_logprobs(self) -> int | None:
        """As the engine counts them."""
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def class_of_service(self) -> Priority:
        """By ``priority`` or, where there is none, by the service tier."""
        by_tier = SERVICE_CLASSES.get(self.service_tier or "", Priority.STANDARD)
        return by_tier if self.priority is None else super().class_of_service

    @property
    def conversation(self) -> Conversation:
        """Raises RequestError for a last message that cannot be continued."""
        offered = self.tools if self.tools and self.tool_choice != "none" else ()
        opens = self.add_generation_prompt
        return Conversation(
            tuple(message.plain() for message in self.messages),
            tuple(tool.description for tool in offered),
            add_generation_prompt=not self.continue_final_message if opens is None else opens,
            continue_final_message=bool(self.continue_final_message),
            template_kwargs=tuple((name, json.dumps(value)) for name, value in self._variables.items()),
        )

    @property
    def _variables(self) -> dict[str, Any]:
        """Of the chat template. Those of ``reasoning_effort`` have the names that vLLM and Qwen's templates know."""
        effort = self.reasoning_effort
        implied: dict[str, Any] = {} if effort is None else {"reasoning_effort": effort}
        if effort == "none":
            implied["enable_thinking"] = False
        return implied | (self.chat_template_kwargs or {})


class ChatEndpoint:
    """POST /v1/chat/completions as OpenAI defines it."""

    def parse(self, body: bytes) -> InferenceRequest:
        """Raises InvalidRequestError, or RequestError for fields that do not go together."""
        request = parse(ChatRequest, body)
        tier = "default" if request.service_tier == "auto" else request.service_tier
        writer = partial(
            ChatWriter,
            include_usage=request.include_usage,
            include_reasoning=request.include_reasoning is not False,
            service_tier=tier,
        )
        sampling = request.sampling(request.answer_limit, request.wanted_logprobs)
        return request.inference([request.conversation], sampling, "messages", writer, request.parsing)

    def error(self, refusal: RefusalError) -> str:
        return error_body(refusal)
