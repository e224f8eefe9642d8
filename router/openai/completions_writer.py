"""The responses of /v1/completions, whole and as stream chunks."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from json.encoder import encode_basestring_ascii as quote

from engine.api import Usage
from router.answer_events import AnswerEvent, Ended, Finished, Moderated, Stamp, Text
from router.complete_answer import Answer
from router.openai.common_response import ChunkTemplate, fault_of, moderation_of, response_fields, usage_fields
from router.openai.json_parts import with_members
from router.openai.logprobs import TextOffset, prompt_logprobs_json, text_logprobs, text_logprobs_json, text_of


class CompletionWriter:
    """The writer of one response of /v1/completions. Implements ``AnswerWriter``.

    ``include_usage``: a stream ends with a chunk of token counts. ``echo``: each choice begins with its
    prompt, as the model read it. ``with_logprobs`` and ``with_prompt_logprobs``: choices have the member ``logprobs``,
    and vLLM's ``prompt_logprobs``. A stream has neither prompts nor their log probabilities: validation refuses both.
    """

    def __init__(
        self,
        stamp: Stamp,
        *,
        include_usage: bool = False,
        echo: bool = False,
        with_logprobs: bool = False,
        with_prompt_logprobs: bool = False,
    ) -> None:
        self._id = f"cmpl-{stamp.id}"
        self._stamp = stamp
        self._echo = echo
        self._with_logprobs = with_logprobs
        self._with_prompt_logprobs = with_prompt_logprobs
        self._chunk = ChunkTemplate("text_completion", self._id, stamp, include_usage)
        self._text_tail = ',"logprobs":null,"finish_reason":null}' + self._chunk.tail
        self._offsets: defaultdict[int, TextOffset] = defaultdict(TextOffset)  # by choice

    def chunks(self, events: Sequence[AnswerEvent]) -> list[str]:
        """Returns a chunk for each piece of text and for each end of a choice, and the last chunks of the stream, in
        the order of ``events``. Advances the text offsets of the choices."""
        chunks: list[str] = []
        for event in events:
            match event:
                case Text():
                    chunks.append(self._text(event))
                case Ended(choice, reason):
                    finish = f'"text":"","logprobs":null,"finish_reason":"{reason.value}"'
                    chunks.append(f'{self._chunk.head}{{"index":{choice},{finish}}}{self._chunk.tail}')
                case Moderated():
                    chunks.append(self._chunk.moderation(event))
                case Finished(usage):
                    chunks += self._chunk.last(usage)
        return chunks

    def whole(self, answers: Sequence[Answer], usage: Usage) -> str:
        """Returns the JSON body of a response that is not streamed. Its choices are in the order of ``answers``."""
        choices = ", ".join(map(self._choice, answers))
        document = response_fields("text_completion", self._id, self._stamp) | moderation_of(answers)
        members = {"choices": f"[{choices}]", "usage": json.dumps(usage_fields(usage, self._stamp))}
        return with_members(document, members)

    def _text(self, event: Text) -> str:
        opened = f'{self._chunk.head}{{"index":{event.choice},"text":{quote(event.text)}'
        if event.logprobs is None:
            return opened + self._text_tail
        logprobs = text_logprobs(event.logprobs, self._offsets[event.choice])
        scores = json.dumps(logprobs, separators=(",", ":"))
        return f'{opened},"logprobs":{scores},"finish_reason":null}}{self._chunk.tail}'

    def _choice(self, answer: Answer) -> str:
        """Returns an item of ``choices`` as JSON. With ``echo`` its text and its log probabilities begin with the
        prompt's."""
        text, prompt_tokens = answer.text, answer.prompt_logprobs or ()
        if self._echo:
            prompt = self._stamp.prompts[answer.prompt]
            text = (prompt if isinstance(prompt, str) else text_of(prompt_tokens)) + text
        choice = {"index": answer.index, "text": text, "finish_reason": answer.finish_reason} | fault_of(answer)
        scores = {"logprobs": "null"}
        if self._with_logprobs:
            echoed_tokens = prompt_tokens if self._echo else ()
            scores["logprobs"] = text_logprobs_json((*echoed_tokens, *(answer.logprobs or ())), TextOffset())
        if self._with_prompt_logprobs:
            scores["prompt_logprobs"] = prompt_logprobs_json(prompt_tokens)
        return with_members(choice, scores)
