"""The endpoint /v1/chat/completions: its request model, and how a request becomes an ``InferenceRequest``."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cached_property, partial
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from engine.api import MAX_GRAMMAR_CHARS, MAX_JSON_DEPTH, MAX_LOGPROBS, Conversation, Grammar, Priority, is_plain_json
from router.errors import RefusalError
from router.inference_request import JSON_GRAMMARS, InferenceRequest, PromptReference, TextParsing
from router.openai.chat_writer import ChatWriter
from router.openai.common_request import GenerationFields
from router.openai.document_fields import DocumentList, RetrievalField
from router.openai.errors import error_body
from router.openai.messages import ChatMessage, ContentField, check_part_count
from router.openai.structured_output import ResponseFormat, grammar_of_format
from router.openai.tools import MAX_TOOLS, Tool, ToolChoice, schema_characters, tool_use_of, unenforced_keyword_paths
from router.openai.validation import (
    MAX_LIST_ITEMS,
    Integer,
    StrictModel,
    Unsupported,
    ValidText,
    check_json_length,
    check_pair_count,
    parse,
    unsupported_except,
)
from router.tool_grammar import ToolUse

MAX_TEMPLATE_VARIABLES = 64
MAX_VARIABLES_CHARS = 65_536  # characters of all template variables together, as JSON

PRIORITY_BY_SERVICE_TIER = {"flex": Priority.BATCH, "priority": Priority.INTERACTIVE}
"""The scheduling class for a value of ``service_tier``. All other values mean ``Priority.STANDARD``."""


def _check_template_variables(values: dict[str, Any]) -> dict[str, Any]:
    """Returns ``values``. Raises ValueError for too many variables, too much JSON, or text that is not Unicode."""
    if len(values) > MAX_TEMPLATE_VARIABLES:
        raise ValueError(f"must have at most {MAX_TEMPLATE_VARIABLES} members")
    check_json_length(values, MAX_VARIABLES_CHARS)
    if not is_plain_json(values):
        raise ValueError(f"must be nested at most {MAX_JSON_DEPTH} deep, and hold no half of a surrogate pair")
    return values


class Prediction(StrictModel):
    """OpenAI's predicted output: text that the answer is expected to contain. It has no effect."""

    type: Literal["content"]
    content: ContentField


class PromptCacheOptions(StrictModel):
    """OpenAI's settings of the prompt cache. They have no effect: the engine caches prefixes anyway."""

    mode: Literal["implicit", "explicit"] | None = None
    ttl: ValidText | None = None


PromptVariables = Annotated[dict[ValidText, Any], AfterValidator(_check_template_variables)]


def _version_number(value: object) -> object:
    """Returns a version that is written as text, as OpenAI does, as a number."""
    return int(value) if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value) else value


class StoredPrompt(StrictModel):
    """OpenAI's reference to a reusable prompt. Without ``version``, it refers to the active version."""

    id: Annotated[ValidText, Field(min_length=1, max_length=64)]
    version: Annotated[Integer, Field(ge=1, le=2**31), BeforeValidator(_version_number)] | None = None
    variables: PromptVariables | None = None


class ChatRequest(GenerationFields):
    """The JSON body of POST /v1/chat/completions."""

    WITHOUT_EFFECT: ClassVar[Sequence[str]] = (
        *GenerationFields.WITHOUT_EFFECT,
        "metadata",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "store",
        "verbosity",
    )

    messages: Annotated[
        list[ChatMessage],
        Field(max_length=MAX_LIST_ITEMS, fail_fast=True),
        BeforeValidator(check_part_count),
    ]
    prompt: StoredPrompt | None = None
    truncation: Literal["auto", "disabled"] | None = None  # OpenAI's, of /v1/responses
    include_assembly: bool | None = None  # Manta's: the usage shows the messages as the model gets them
    max_completion_tokens: Integer | None = Field(None, ge=1, le=2**31)
    response_format: ResponseFormat | None = None
    service_tier: Literal["auto", "default", "flex", "priority"] | None = None
    logprobs: bool | None = None
    top_logprobs: Integer | None = Field(None, ge=0, le=MAX_LOGPROBS)
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None  # accepted and without effect where there are no tools
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: Annotated[dict[ValidText, Any], AfterValidator(_check_template_variables)] | None = None
    include_reasoning: bool | None = None
    documents: DocumentList | None = None  # Manta's: passages of these are put before the last message of the user
    retrieval: RetrievalField | None = None  # Manta's: the same with named collections, and how passages are found
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    safety_identifier: ValidText | None = None  # OpenAI's new name of ``user``, which stands for it
    # Accepted without effect; the response names them in the header x-manta-ignored.
    verbosity: Literal["low", "medium", "high"] | None = None
    prediction: Prediction | None = None
    store: bool | None = None
    metadata: Annotated[dict[ValidText, ValidText], BeforeValidator(check_pair_count)] | None = None
    prompt_cache_key: ValidText | None = None
    prompt_cache_options: PromptCacheOptions | None = None
    prompt_cache_retention: Literal["in_memory", "in-memory", "24h"] | None = None
    # Not supported: any value that asks for something is refused.
    modalities: Annotated[Any, unsupported_except(["text"])] = None
    functions: Annotated[Any, unsupported_except([])] = None
    function_call: Unsupported = None
    audio: Unsupported = None
    web_search_options: Unsupported = None
    echo: Annotated[Any, unsupported_except(False)] = None  # vLLM's, as the next
    add_special_tokens: Annotated[Any, unsupported_except(False)] = None  # the chat template writes them

    @model_validator(mode="before")
    @classmethod
    def _prompt_stands_for_messages(cls, members: Any) -> Any:
        """Lets a request that names a stored prompt leave out ``messages``."""
        if isinstance(members, dict) and members.get("prompt") is not None and members.get("messages") is None:
            return {**members, "messages": []}
        return members

    @model_validator(mode="after")
    def _some_messages(self) -> Self:
        if not self.messages and self.prompt is None:
            raise PydanticCustomError("misplaced", "must have at least 1 message", {"name": "messages"})
        return self

    @model_validator(mode="after")
    def _assembly_needs_usage(self) -> Self:
        if self.stream and self.include_assembly and not self.include_usage:
            message = "needs 'stream_options.include_usage' where the answer is streamed"
            raise PydanticCustomError("misplaced", message, {"name": "include_assembly"})
        return self

    @model_validator(mode="after")
    def _top_logprobs_need_logprobs(self) -> Self:
        if self.top_logprobs and not self.logprobs:  # 0 asks for nothing
            raise PydanticCustomError("misplaced", "needs 'logprobs' to be true", {"name": "top_logprobs"})
        return self

    @model_validator(mode="after")
    def _tools_are_consistent(self) -> Self:
        names = [tool.function.name for tool in self.tools or ()]
        if len(set(names)) < len(names):
            raise PydanticCustomError("misplaced", "has two tools of one name", {"name": "tools"})
        if self.tool_choice is not None and not names:
            raise PydanticCustomError("misplaced", "needs 'tools'", {"name": "tool_choice"})
        if names and self._schema_characters > MAX_GRAMMAR_CHARS:
            message = f"has schemas of more than {MAX_GRAMMAR_CHARS} characters, with the form of the answer"
            raise PydanticCustomError("misplaced", message, {"name": "tools"})
        if self.tool_use is not None:
            for name, grammar in self.text_grammars.items():
                if grammar.kind == "lark":
                    message = "cannot be a grammar in Lark's syntax where tools may be called"
                    raise PydanticCustomError("misplaced", message, {"name": name})
        return self

    @model_validator(mode="after")
    def _continuation_excludes_generation_prompt(self) -> Self:
        if self.continue_final_message and self.add_generation_prompt:
            message = "excludes 'add_generation_prompt'"
            raise PydanticCustomError("misplaced", message, {"name": "continue_final_message"})
        return self

    @property
    def end_user(self) -> str | None:
        return self.safety_identifier if self.user is None else self.user

    def _requested_grammars(self) -> dict[str, Grammar | None]:
        """Returns the grammars of vLLM's fields and that of OpenAI's ``response_format``, by field name."""
        return super()._requested_grammars() | {"response_format": grammar_of_format(self.response_format)}

    @property
    def tool_names(self) -> tuple[str, ...]:
        return tuple(tool.function.name for tool in self.tools or ())

    @property
    def _schema_characters(self) -> int:
        """The characters of the tools' schemas and the text's grammars together, which MAX_GRAMMAR_CHARS limits."""
        text_characters = sum(len(grammar.source) for grammar in self.text_grammars.values())
        return schema_characters(self.tools or ()) + text_characters

    @cached_property
    def tool_use(self) -> ToolUse | None:
        """The tools that the answer may call, by ``tools`` and ``tool_choice``; None: no tool.

        Raises PydanticCustomError if ``tool_choice`` names a function that is not among the tools.
        """
        return tool_use_of(self.tools or (), self.tool_choice, self.parallel_tool_calls, self.text_grammar)

    @cached_property
    def grammar(self) -> Grammar | None:
        """The grammar of the whole answer. With tools it covers the text and the tool calls. None: any text."""
        return self.text_grammar if self.tool_use is None else self.tool_use.grammar

    @property
    def parsing(self) -> TextParsing:
        """The parts that the router parses out of the generated text: reasoning, tool calls, both or neither.

        Reasoning is not parsed where a grammar constrains the text: ``<think>`` is then a part of the answer.
        """
        use = self.tool_use
        reasoning = self.grammar is None if use is None else use.text_before_calls
        if use is None:
            return TextParsing(reasoning)
        text = use.text_grammar
        return TextParsing(reasoning, True, use.text_before_calls, text is not None and text.kind in JSON_GRAMMARS)

    @property
    def ignored(self) -> tuple[str, ...]:
        """The names of the fields that the request sets but that have no effect, for the header x-manta-ignored.

        Besides whole fields the list has: ``cache_control`` in messages and tools, a grammar for text where a tool call
        is required, and keywords of the tools' JSON schemas that structured output does not enforce.
        """
        fields = [*super().ignored]
        if any(message.has_cache_control for message in self.messages):
            fields.append("messages.cache_control")
        if any(tool.has_cache_control for tool in self.tools or ()):
            fields.append("tools.cache_control")
        if self.tool_use is not None:
            fields += self.text_grammars if self.tool_use.required else ()
            fields += unenforced_keyword_paths(self.tools or (), self.tool_use)
        return tuple(fields)

    @property
    def max_answer_tokens(self) -> int | None:
        """The most tokens of the answer; None: the request sets no limit. ``max_completion_tokens`` overrides the older
        ``max_tokens``."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def logprob_count(self) -> int | None:
        """The value of ``SamplingParams.logprobs``: None without ``logprobs``, else ``top_logprobs`` or 0."""
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def priority_class(self) -> Priority:
        """The scheduling class of the request.

        With ``priority``, its sign decides. Without it, ``service_tier`` does: ``flex`` is batch, ``priority`` is
        interactive, all others are standard.
        """
        by_tier = PRIORITY_BY_SERVICE_TIER.get(self.service_tier or "", Priority.STANDARD)
        return by_tier if self.priority is None else super().priority_class

    @property
    def conversation(self) -> Conversation:
        """The prompt: messages, tools and variables for the model's chat template.

        Raises RequestError for ``continue_final_message`` where the last message cannot be continued, or together with
        ``add_generation_prompt``.
        """
        offered = self.tools if self.tools and self.tool_choice != "none" else ()
        opens = self.add_generation_prompt
        return Conversation(
            tuple(message.engine_message() for message in self.messages),
            tuple(tool.template_json for tool in offered),
            add_generation_prompt=not self.continue_final_message if opens is None else opens,
            continue_final_message=bool(self.continue_final_message),
            template_kwargs=tuple((name, json.dumps(value)) for name, value in self._variables.items()),
        )

    @property
    def reference(self) -> PromptReference | None:
        """The stored prompt that the request names; None: it names none."""
        prompt = self.prompt
        return None if prompt is None else PromptReference(prompt.id, prompt.version, prompt.variables or {})

    @property
    def _variables(self) -> dict[str, Any]:
        """The variables of the chat template: ``chat_template_kwargs``, and those that ``reasoning_effort`` implies.

        The implied ones have the names that vLLM and Qwen's templates use. ``chat_template_kwargs`` overrides them.
        """
        effort = self.reasoning_effort
        implied: dict[str, Any] = {} if effort is None else {"reasoning_effort": effort}
        if effort == "none":
            implied["enable_thinking"] = False
        return implied | (self.chat_template_kwargs or {})


class ChatEndpoint:
    """The wire format of /v1/chat/completions, as OpenAI defines it. Implements ``Endpoint``."""

    def parse(self, body: bytes) -> InferenceRequest:
        """Returns the request in ``body``, which is JSON.

        Raises InvalidRequestError for a wrong field, and RequestError for fields that exclude each other.
        """
        request = parse(ChatRequest, body)
        tier = "default" if request.service_tier == "auto" else request.service_tier
        writer = partial(
            ChatWriter,
            include_usage=request.include_usage,
            include_reasoning=request.include_reasoning is not False,
            service_tier=tier,
        )
        sampling = request.sampling(request.max_answer_tokens, request.logprob_count)
        return request.inference(
            [request.conversation],
            sampling,
            "messages",
            writer,
            request.parsing,
            template=request.reference,
            truncation=request.truncation,
            include_assembly=bool(request.include_assembly),
            documents=tuple(each.document(str(place)) for place, each in enumerate(request.documents or ())),
            retrieval=None if request.retrieval is None else request.retrieval.options,
        )

    def error(self, refusal: RefusalError) -> str:
        """Returns OpenAI's error object for ``refusal``, as JSON."""
        return error_body(refusal)
