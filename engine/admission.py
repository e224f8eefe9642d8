"""Turns a request into a ``Job``: tokenises the prompt, checks it against the model, and resolves the settings (vLLM's
input processor). Has no state that changes, so callers may use it from any thread."""

from __future__ import annotations

import math
import secrets
from collections.abc import Collection, Iterable
from collections.abc import Sequence as Tokens
from dataclasses import dataclass, field, replace
from typing import Self

from torch import Tensor

from engine.api import (
    MAX_BEAM_STOP_TOKENS,
    ContextLengthError,
    Conversation,
    FinishReason,
    GenerationRequest,
    Logprob,
    Prompt,
    RequestError,
    SamplingParams,
    TokenLogprobs,
)
from engine.config import EngineConfig
from engine.decode.beams import FinishedHypothesis
from engine.decode.grammar import GrammarCompiler, GrammarError, GrammarState
from engine.decode.logprobs import Scored, score
from engine.decode.lookup import PromptLookup
from engine.decode.output import Output
from engine.decode.rules import LogitRules
from engine.scheduler.step_plan import Chunk
from engine.sequence import Sequence
from engine.token_id_tokenizer import TokenIds
from engine.tokenizer import PromptTooLongError, Tokenizer

MAX_FORCED_TOKENS = 63  # most forced tokens (jump-forward decoding) that one step adds to a sequence

MAX_PROMPT_LOGPROBS = 131_072
"""Most log probabilities of a prompt: one for each token, and those of the most probable ones beside it. They are kept
until the first token of the answer, and sent with it, for which all other streams wait."""


@dataclass(slots=True, eq=False)
class Job:
    """One choice or beam of a request inside the engine: its ``Sequence``, which the scheduler handles, and its
    ``Output``, which turns tokens into text."""

    sequence: Sequence
    output: Output
    prompt_scores: dict[int, TokenLogprobs] = field(default_factory=dict)  # prompt log probabilities, by position

    ended: tuple[str, FinishReason] | None = None  # rest of the text and finish reason, if it resumes a whole answer
    continues: bool = False  # whether another replica had the request before
    sent: int = field(init=False)  # leading tokens of the sequence that a delta carried or the request brought

    def __post_init__(self) -> None:
        self.sent = len(self.sequence.tokens)

    def accept(self, new: int, most_forced: int) -> tuple[tuple[int, ...], str, FinishReason | None]:
        """Detokenises the ``new`` last tokens of the sequence, and appends up to ``most_forced`` tokens that its
        grammar forces (jump-forward decoding). Returns all these tokens, the text that can be sent, and the finish
        reason, None while the sequence goes on. Removes tokens after the end of the answer. Sets ``sent`` and the
        sequence's ``newest``. Raises GrammarError if the tokens do not follow the grammar.

        Adds no forced tokens if the request wants log probabilities, because then each token needs a row of logits, or
        has stop strings, because one of them might end the answer among the forced tokens.
        """
        sequence, params = self.sequence, self.sequence.sampling
        taken = len(sequence.tokens) - new
        text, reason = "", None
        for end in range(taken + 1, len(sequence.tokens) + 1):
            more, reason = self._push(end)
            text += more
            if reason is not None:
                del sequence.tokens[end:]  # accepted draft tokens after the end of the answer
                break
        if sequence.grammar is not None and reason is None and not params.records_logprobs and not params.stop:
            for token in sequence.grammar.forced(most_forced):
                sequence.tokens.append(token)
                more, reason = self._push(len(sequence.tokens))
                text += more
                if reason is not None:
                    break
        sequence.newest = len(sequence.tokens) - taken - new + 1
        self.sent = len(sequence.tokens)
        return tuple(sequence.tokens[taken:]), text, reason

    def would_end(self, token: int) -> FinishReason | None:
        """Returns why a beam would end with ``token``, or None if it would not; ``max_tokens`` is not considered.
        Changes nothing. Raises GrammarError if the grammar does not allow the token."""
        sequence = self.sequence
        if self.output.is_end(token):
            return FinishReason.STOP
        if sequence.sampling.stop and self.output.copy().push(token, last=False)[1] is not None:
            return FinishReason.STOP
        if sequence.grammar is not None:
            return FinishReason.STOP if sequence.grammar.completed_by(token) else None
        return None

    def lengthen(self, token: int) -> None:
        """Appends ``token`` to a beam. The text is updated only if the request has stop strings, since nothing else
        needs it before the beam ends."""
        self.sequence.tokens.append(token)
        if self.sequence.sampling.stop:
            self.output.push(token, last=False)

    def _push(self, end: int) -> tuple[str, FinishReason | None]:
        """Detokenises the token before position ``end``. Returns the text that became certain and the finish reason, if
        the sequence ends there. The grammar must not have read any token after it."""
        sequence = self.sequence
        last = end - sequence.prompt_length >= sequence.max_tokens
        complete = sequence.grammar is not None and sequence.advance_grammar()
        return self.output.push(sequence.tokens[end - 1], last, complete)


@dataclass(frozen=True, slots=True)
class Admission:
    """Checks the requests to one model, and turns each into a ``Job``: tokens, rules, grammar and limits."""

    tokenizer: Tokenizer | TokenIds
    vocab_size: int
    context_length: int  # tokens, prompt and answer together
    default_max_tokens: int | None  # of an answer whose request sets no limit; None: what the context has room for
    reserve: bool  # reserve KV blocks for the whole answer of every request (EngineConfig.reserve_answers)
    grammars: GrammarCompiler
    speculates: bool  # whether the engine uses speculative decoding
    ahead: int  # tokens beyond the known ones that a sequence has KV blocks for (vLLM's lookahead slots)

    @classmethod
    def of(
        cls, config: EngineConfig, tokenizer: Tokenizer | TokenIds, vocab_size: int, context_length: int, ahead: int
    ) -> Self:
        """Returns the admission of an engine with this ``config``, whose grammar compiler is loaded."""
        grammars = tokenizer.grammar_compiler(vocab_size)
        grammars.load()
        return cls(
            tokenizer,
            vocab_size,
            context_length,
            config.default_max_tokens,
            config.reserve_answers,
            grammars,
            config.speculative_tokens > 0,
            ahead,
        )

    def prepare(self, request: GenerationRequest, now: float) -> Job:
        """Returns the first job of a request, that of choice 0, for a request that arrives at the instant ``now``, in
        seconds of the engine's clock. Raises RequestError, which names the field at fault, ContextLengthError for a
        prompt that is too long, or OverloadedError if its grammar cannot be compiled at the moment."""
        params = request.sampling
        param = "messages" if isinstance(request.prompt, Conversation) else "prompt"
        self.tokenizer.check(request)
        tokens = self._encode(request.prompt, param)
        max_tokens = self._max_tokens(len(tokens), params, param)
        _check_scores(params, len(tokens))
        rules = self._rules(params, len(tokens))
        grammar = None if params.grammar is None else self.grammars.compile(params.grammar, len(tokens))
        output = self._output(params, tokens)
        known = [*tokens, *request.resume]
        ended = self._ended(request.resume, output, max_tokens, grammar, known)
        lookup = PromptLookup() if self._can_speculate(params, rules) else None
        for reader in (rules, lookup):
            if reader is not None:
                reader.read(known)  # on the caller's thread, so that no step waits for it
        sequence = Sequence(
            request_id=request.request_id,
            tokens=known,
            prompt_length=len(tokens),
            sampling=params,
            cache_salt=request.cache_salt,
            seed=secrets.randbits(63) if params.seed is None else params.seed,
            max_tokens=max_tokens,
            tenant=request.tenant,
            priority=request.priority,
            continues=request.continues,
            surplus=request.surplus,
            arrived=now,
            deadline=None if request.deadline_s is None else now + request.deadline_s,
            objective=None if request.ttft_slo_s is None else now + request.ttft_slo_s,
            ahead=self.ahead,
            reserve=(self.reserve or request.reserve) and params.beam is None,  # the need of beams is unknown
            rules=rules,
            grammar=grammar,
            lookup=lookup,
            branches=params.choices - 1 if params.beam is None and max_tokens else 0,
            candidates=self._candidates(params),
            scores_prompt=params.prompt_logprobs is not None,
        )
        return Job(sequence, output, ended=ended, continues=request.continues)

    def _can_speculate(self, params: SamplingParams, rules: LogitRules | None) -> bool:
        """Returns whether a request may get draft tokens. Not with rules or a grammar, whose state would have to be
        rolled back after a rejected draft token, and not with beam search or log probabilities."""
        plain = rules is None and params.grammar is None and params.beam is None
        return self.speculates and plain and not params.records_logprobs

    def _candidates(self, params: SamplingParams) -> int:
        """Returns how many candidate tokens a beam search ranks in each step, or 0 without beam search. The number
        fills the width even if every token that ends an answer is among them. Raises RequestError for too many stop
        tokens."""
        if params.beam is None:
            return 0
        final = len(self._output(params, ()).final_tokens)
        if final > MAX_BEAM_STOP_TOKENS:
            raise RequestError(
                f"A beam search has at most {MAX_BEAM_STOP_TOKENS} tokens that end it.", "stop_token_ids"
            )
        return params.beam.width * max(2, 1 + final)

    def branch(self, job: Job, choice: int, token: int) -> Job:
        """Returns a new job that continues ``job`` with ``token``: another choice of a parallel sampling, or another
        beam. It has the number ``choice`` and copies of rules, grammar and, for a beam, output."""
        if job.sequence.candidates:
            beam = Job(job.sequence.branch(choice, token), job.output.copy())
            if job.sequence.sampling.stop:
                beam.output.push(token, last=False)
            return beam
        sequence = job.sequence
        output = self._output(sequence.sampling, sequence.tokens[: sequence.prompt_length])
        branch = Job(sequence.branch(choice, token), output)
        branch.sent -= 1
        return branch

    def write(self, job: Job, whole: FinishedHypothesis) -> tuple[str, tuple[TokenLogprobs, ...] | None]:
        """Returns the text of an answer that a beam search found, and the log probabilities of its tokens, None if the
        request does not ask for them."""
        sequence, last = job.sequence, len(whole.hypothesis.tokens) - 1
        output = self._output(sequence.sampling, sequence.tokens[: sequence.prompt_length])
        text, scores = "", list[TokenLogprobs]()
        for place, (token, scored) in enumerate(zip(whole.hypothesis.tokens, whole.hypothesis.scored, strict=True)):
            at_end = place == last
            long, stopped = at_end and whole.reason is FinishReason.LENGTH, at_end and whole.reason is FinishReason.STOP
            text += output.push(token, last=long, complete=stopped)[0]
            scores += self.logprobs(token, scored, output) or ()
        return text, tuple(scores) if sequence.sampling.records_logprobs else None

    def logprobs(self, token: int, scored: Scored | None, output: Output) -> tuple[TokenLogprobs, ...] | None:
        """Returns the log probabilities of ``token``, the last one pushed to ``output``, for its delta. ``scored``
        holds them by token id; None if the request does not ask for any, and then the result is None too. Empty for a
        token that ends the answer by itself (EOS or one of ``stop_token_ids``), because it adds no text."""
        if scored is None or output.is_end(token):
            return None if scored is None else ()
        return (replace(self._scored(token, scored), added=output.added),)

    def prompt_logprobs(self, job: Job) -> tuple[TokenLogprobs, ...] | None:
        """Removes the log probabilities of the prompt from ``job`` and returns them, for the first delta of the
        request: one entry per prompt token, in order. The first token, which has no context, has NaN. Returns None on
        every later call, for choices other than the first, and if the request does not ask for them."""
        if not job.sequence.scores_prompt or job.sequence.choice:
            return None
        job.sequence.scores_prompt = False  # else a preemption would have the prompt scored again
        scores, job.prompt_scores = job.prompt_scores, {}
        first = self._scored(job.sequence.tokens[0], Scored(math.nan, (), 0))
        return tuple(self._placed((first, *(scores[at] for at in range(1, job.sequence.prompt_length)))))

    def _placed(self, scores: Iterable[TokenLogprobs]) -> Iterable[TokenLogprobs]:
        """Yields ``scores`` of tokens that start a text, each with the bytes that its token adds to the text."""
        reader = self.tokenizer.detokenizer()
        for one in scores:
            reader.push(one.chosen.token_id)
            yield replace(one, added=reader.added)

    def score_prompt(self, job: Job, chunk: Chunk, logits: Tensor) -> None:
        """Records log probabilities of prompt tokens in ``job.prompt_scores``. Row i of ``logits`` [rows, vocab]
        float32 follows the i-th token of ``chunk``, and scores the prompt token after it."""
        follow = range(chunk.start + 1, chunk.start + 1 + len(logits))
        tokens = [job.sequence.tokens[at] for at in follow]
        counts = [job.sequence.sampling.prompt_logprobs or 0] * len(tokens)
        scores = score(logits, range(len(tokens)), tokens, counts)
        job.prompt_scores.update(zip(follow, map(self._scored, tokens, scores), strict=True))

    def _scored(self, token: int, scored: Scored) -> TokenLogprobs:
        """Returns ``scored`` in the public type, with the texts of its tokens."""
        top = tuple(self._logprob(*one) for one in scored.top)
        return TokenLogprobs(self._logprob(token, scored.logprob), top, scored.rank)

    def _logprob(self, token: int, logprob: float) -> Logprob:
        """Returns a token with its text, its bytes and its log probability."""
        raw = self.tokenizer.token_bytes(token)
        return Logprob(token, raw.decode("utf-8", "replace"), raw, logprob)

    def _output(self, params: SamplingParams, prompt: Tokens[int]) -> Output:
        """Returns the output of a sequence after the tokens ``prompt``."""
        verbatim = params.grammar is not None  # the text must be exactly the one that the grammar has read
        return Output(params, self.tokenizer.eos_token_ids, self.tokenizer.detokenizer(prompt, verbatim))

    def _rules(self, params: SamplingParams, prompt_length: int) -> LogitRules | None:
        """Returns the logit rules of a request, or None if it has none. Raises RequestError for token ids out of
        range."""
        for param in ("logit_bias", "allowed_token_ids", "stop_token_ids"):
            tokens = getattr(params, param)
            if tokens and not 0 <= min(tokens) <= max(tokens) < self.vocab_size:
                raise RequestError(f"{param} must name tokens between 0 and {self.vocab_size - 1}.", param)
        # A tokenizer may have tokens that the model has no logits for: these are never drawn, and have no column.
        ends = frozenset(token for token in self.tokenizer.eos_token_ids if token < self.vocab_size)
        final_tokens = ends | frozenset(params.stop_token_ids)
        bad_words = [word for word in self.tokenizer.spellings(params.bad_words) if max(word) < self.vocab_size]
        return LogitRules.of(params, prompt_length, self.vocab_size, final_tokens, bad_words)

    def _ended(
        self, resume: tuple[int, ...], output: Output, max_tokens: int, grammar: GrammarState | None, known: list[int]
    ) -> tuple[str, FinishReason] | None:
        """Returns as ``_replay``. The grammar, too, reads all tokens that are ``known``, and may be complete."""
        ended = self._replay(resume, output, max_tokens)
        if grammar is not None and self._follow(grammar, known):
            # Also at ``max_tokens``: an answer that is complete with its last token has not been cut.
            return (output.rest() if ended is None else ended[0]), FinishReason.STOP
        return ended

    def _replay(self, resume: tuple[int, ...], output: Output, max_tokens: int) -> tuple[str, FinishReason] | None:
        """Checks the tokens of the answer that the request resumes, and detokenises them, so that only later text is
        sent. Returns the rest of the text and the finish reason if they are the whole answer, of which only the end was
        not sent; else None. Raises RequestError for ids out of range or tokens after the end of the answer."""
        if resume:
            self._check_tokens(resume, "resume")
        for generated, token in enumerate(resume, start=1):
            text, reason = output.push(token, last=False)
            if generated > max_tokens or (reason is not None and generated < len(resume)):
                raise RequestError("The answer to resume goes on after its end.", "resume")
            if reason is not None:
                return text, reason
        return (output.rest(), FinishReason.LENGTH) if resume and len(resume) == max_tokens else None

    def _follow(self, grammar: GrammarState, tokens: list[int]) -> bool:
        """Lets the grammar read the resumed ``tokens``. Returns whether they complete it. Raises RequestError if they
        do not follow it."""
        try:
            grammar.read(tokens)
        except GrammarError as error:
            raise RequestError("The answer to resume does not follow its grammar.", "resume") from error
        return grammar.complete

    def _encode(self, prompt: Prompt, param: str) -> list[int]:
        """Returns the token ids of a prompt. Raises RequestError naming ``param``, or ContextLengthError. A text that
        is much too long is refused before it is fully tokenised."""
        try:
            tokens = self.tokenizer.encode(prompt, most=self.context_length)
        except PromptTooLongError as error:
            raise self._too_long(error.tokens, param, "at least ") from None
        self._check_tokens(tokens, param)
        return tokens

    def _check_tokens(self, tokens: Collection[int], param: str) -> None:
        """Raises RequestError, naming ``param``, for no tokens at all or token ids out of range."""
        if not tokens:
            raise RequestError("The prompt is empty.", param)
        if min(tokens) < 0 or max(tokens) >= self.vocab_size:
            raise RequestError(f"Token ids must be between 0 and {self.vocab_size - 1}.", param)

    def _max_tokens(self, prompt: int, params: SamplingParams, param: str) -> int:
        """Returns how many tokens may be generated after a prompt of ``prompt`` tokens: what the request asks for, or
        the default and no less than its ``min_tokens``, as far as the context has room for it.
        Raises ContextLengthError if prompt and answer do not fit."""
        asked = params.max_tokens
        if prompt > self.context_length or (prompt == self.context_length and asked != 0):
            raise self._too_long(prompt, param)
        if asked is not None and prompt + asked > self.context_length:
            message = (
                f"This model's maximum context length is {self.context_length} tokens. However, "
                f"you requested {prompt + asked} tokens ({prompt} in the prompt, {asked} in the answer)."
            )
            raise ContextLengthError(message, "max_tokens", prompt_tokens=prompt)
        if asked is not None:
            return asked
        room = self.context_length - prompt
        if self.default_max_tokens is None:
            return room
        return min(room, max(self.default_max_tokens, params.min_tokens))

    def _too_long(self, tokens: int, param: str, bound: str = "") -> ContextLengthError:
        """Returns the error for a prompt of ``tokens`` tokens. ``bound`` is what the message says before the number."""
        message = (
            f"This model's maximum context length is {self.context_length} tokens. However, "
            f"your prompt has {bound}{tokens} tokens."
        )
        return ContextLengthError(message, param, prompt_tokens=tokens)


def _check_scores(params: SamplingParams, prompt: int) -> None:
    """Raises RequestError if a prompt of ``prompt`` tokens is to have more than MAX_PROMPT_LOGPROBS log
    probabilities."""
    if params.prompt_logprobs is None:
        return
    asked = prompt * (1 + params.prompt_logprobs)
    if asked > MAX_PROMPT_LOGPROBS:
        raise RequestError(
            f"A prompt has at most {MAX_PROMPT_LOGPROBS} log probabilities; {prompt} tokens with "
            f"{params.prompt_logprobs} alternatives each would have {asked}.",
            "prompt_logprobs",
        )
