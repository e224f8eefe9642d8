"""Request → job: tokenised, checked against the model, settings resolved. Pure, so any thread may do it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from engine.api import ContextLengthError, Conversation, GenerationRequest, RequestError
from engine.decode.output import Output
from engine.sequence import Sequence
from engine.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Job:
    """One admitted request: what the scheduler moves about, and what turns its tokens into text."""

    sequence: Sequence
    output: Output


@dataclass(frozen=True, slots=True)
class Admission:
    """Makes jobs for one model."""

    tokenizer: Tokenizer
    vocab_size: int
    context_length: int  # tokens, prompt and answer together

    def prepare(self, request: GenerationRequest) -> Job:
        """Raises RequestError, or ContextLengthError, naming the field that is wrong."""
        params = request.sampling
        param = "messages" if isinstance(request.prompt, Conversation) else "prompt"
        tokens = self.tokenizer.encode(request.prompt)
        self._check_tokens(tokens, param)
        sequence = Sequence(
            request_id=request.request_id,
            tokens=tokens,
            prompt_length=len(tokens),
            sampling=params,
            cache_salt=request.cache_salt,
            seed=secrets.randbits(63) if params.seed is None else params.seed,
            max_tokens=self._max_tokens(len(tokens), params.max_tokens, param),
        )
        return Job(sequence, Output(params, self.tokenizer.eos_token_ids, self.tokenizer.detokenizer()))

    def _check_tokens(self, tokens: list[int], param: str) -> None:
        if not tokens:
            raise RequestError("The prompt is empty.", param)
        if min(tokens) < 0 or max(tokens) >= self.vocab_size:
            raise RequestError(f"Token ids must be between 0 and {self.vocab_size - 1}.", param)

    def _max_tokens(self, prompt: int, asked: int | None, param: str) -> int:
        """Tokens that may be generated; without a wish, up to the end of the context."""
        limit = f"This model's maximum context length is {self.context_length} tokens. However, "
        code = "context_length_exceeded"
        if prompt >= self.context_length:
            raise ContextLengthError(f"{limit}your prompt has {prompt} tokens.", param, code)
        if asked is not None and prompt + asked > self.context_length:
            message = f"{limit}you requested {prompt + asked} tokens ({prompt} in the prompt, {asked} in the answer)."
            raise ContextLengthError(message, "max_tokens", code)
        return self.context_length - prompt if asked is None else asked
