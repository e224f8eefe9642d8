"""Request → job: tokenised, checked against the model, settings resolved. Pure, so any thread may do it."""

from __future__ import annotations

import math
import secrets
from collections.abc import Collection, Iterable
from collections.abc import Sequence as Tokens
from dataclasses import dataclass, field, replace

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
from engine.decode.beams import Whole
from engine.decode.grammar import GrammarCompiler, GrammarError, GrammarState
from engine.decode.logprobs import Scored, score
from engine.decode.lookup import PromptLookup
from engine.decode.output import Output
from engine.decode.rules import LogitRules
from engine.scheduler.step_plan import Chunk
from engine.sequence import Sequence
from engine.token_ids import TokenIds
from engine.tokenizer import PromptTooLongError, Tokenizer

MAX_FORCED_TOKENS = 63  # tokens that a grammar adds to one step of a sequence


@dataclass(slots=True, eq=False)
class Job:
    """One admitted request: what the scheduler moves about, and what turns its tokens into text."""

    sequence: Sequence
    output: Output
    prompt_scores: dict[int, TokenLogprobs] = field(default_factory=dict)  # by position; emptied into a delta

    sent_prompt: bool = False  # whether a delta had the scores of the prompt
    sent: int = field(init=False)  # tokens of the sequence that a delta had, or that came with the request

    def __post_init__(self) -> None:
        self.sent = len(self.sequence.tokens)

    def accept(self, new: int, most_forced: int) -> tuple[tuple[int, ...], str, FinishReason | None]:
        """Takes the sequence's ``new`` last tokens, and adds up to ``most_forced`` that its grammar lets follow: all of
        them, their text, and why the sequence ends, if it does. Raises GrammarError.

        It adds none to an answer with log probabilities, where each token needs a step of its own, or with stop
        strings, which might end the answer among the forced tokens.
        """
        sequence, params = self.sequence, self.sequence.sampling
        taken = len(sequence.tokens) - new
        text, reason = "", None
        for end in range(taken + 1, len(sequence.tokens) + 1):
            more, reason = self._push(end)
            text += more
            if reason is not None:
                del sequence.tokens[end:]  # guessed right, but too late
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
        """Whether a beam would end with this token, its length aside. Raises GrammarError."""
        sequence = self.sequence
        if self.output.is_end(token):
            return FinishReason.STOP
        if sequence.sampling.stop and self.output.copy().push(token, last=False)[1] is not None:
            return FinishReason.STOP
        if sequence.grammar is not None:
            return FinishReason.STOP if sequence.grammar.completed_by(token) else None
        return None

    def lengthen(self, token: int) -> None:
        """Adds a token to a beam. Only stop strings have to know its text before its end."""
        self.sequence.tokens.append(token)
        if self.sequence.sampling.stop:
            self.output.push(token, last=False)

    def _push(self, end: int) -> tuple[str, FinishReason | None]:
        """The token before position ``end``, the newest that its grammar reads."""
        sequence = self.sequence
        last = end - sequence.prompt_length >= sequence.max_tokens
        return self.output.push(sequence.tokens[end - 1], last, sequence.follows_grammar())


@dataclass(frozen=True, slots=True)
class Admission:
    """Makes jobs for one model."""

    tokenizer: Tokenizer | TokenIds
    vocab_size: int
    context_length: int  # tokens, prompt and answer together
    reserve: bool  # for whatever the request says
    grammars: GrammarCompiler
    guesses: bool  # whether what follows is guessed
    ahead: int  # tokens for which blocks are held before they are due

    def prepare(self, request: GenerationRequest, now: float) -> Job:
        """A job that arrives ``now``. Raises RequestError, or ContextLengthError, naming the field that is wrong."""
        params = request.sampling
        param = "messages" if isinstance(request.prompt, Conversation) else "prompt"
        self.tokenizer.check(request)
        tokens = self._encode(request.prompt, param)
        max_tokens = self._max_tokens(len(tokens), params.max_tokens, param)
        rules = self._rules(params, len(tokens))
        grammar = None if params.grammar is None else self.grammars.compile(params.grammar, len(tokens))
        output = self._output(params, tokens)
        self._replay(request.resume, output, max_tokens)
        lookup = PromptLookup() if self._can_guess(params, rules) else None
        for reader in (rules, lookup):
            if reader is not None:
                reader.read([*tokens, *request.resume])  # here, where no step waits for it
        if grammar is not None:
            self._follow(grammar, [*tokens, *request.resume])
        sequence = Sequence(
            request_id=request.request_id,
            tokens=[*tokens, *request.resume],
            prompt_length=len(tokens),
            sampling=params,
            cache_salt=request.cache_salt,
            seed=secrets.randbits(63) if params.seed is None else params.seed,
            max_tokens=max_tokens,
            tenant=request.tenant,
            priority=request.priority,
            arrived=now,
            deadline=None if request.deadline_s is None else now + request.deadline_s,
            ahead=self.ahead,
            reserve=(self.reserve or request.reserve) and params.beam is None,  # who knows what beams need
            rules=rules,
            grammar=grammar,
            lookup=lookup,
            branches=params.choices - 1 if params.beam is None and max_tokens else 0,
            candidates=self._candidates(params),
            scores_prompt=params.prompt_logprobs is not None,
        )
        return Job(sequence, output)

    def _can_guess(self, params: SamplingParams, rules: LogitRules | None) -> bool:
        """Rules and grammars would have to read guesses and take them back."""
        plain = rules is None and params.grammar is None and params.beam is None
        return self.guesses and plain and not params.records_logprobs

    def _candidates(self, params: SamplingParams) -> int:
        """How many tokens a beam search looks at for each beam: enough to fill its width without those that end an
        answer. 0: no beam search."""
        if params.beam is None:
            return 0
        final = len(self._output(params, ()).final_tokens)
        if final > MAX_BEAM_STOP_TOKENS:
            raise RequestError(
                f"A beam search has at most {MAX_BEAM_STOP_TOKENS} tokens that end it.", "stop_token_ids"
            )
        return params.beam.width * max(2, 1 + final)

    def branch(self, job: Job, choice: int, token: int) -> Job:
        """Another choice of a request, with its first token; or another beam, with one more."""
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

    def write(self, job: Job, whole: Whole) -> tuple[str, tuple[TokenLogprobs, ...] | None]:
        """The text of an answer that a beam search found. With it the log probabilities of its tokens, or None if the
        request does not ask for any."""
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
        """The log probabilities that a delta has for ``token``, the last that ``output`` has read. None: the request
        asks for none. Empty: the token ends the answer, so the answer does not have it."""
        if scored is None or output.is_end(token):
            return None if scored is None else ()
        return (replace(self._scored(token, scored), added=output.added),)

    def prompt_logprobs(self, job: Job) -> tuple[TokenLogprobs, ...] | None:
        """The scores of a prompt's tokens, which go with the first token after it. None if the request does not ask
        for them, or a delta had them before."""
        if not job.sequence.scores_prompt or job.sequence.choice or job.sent_prompt:
            return None
        job.sent_prompt = True
        scores, job.prompt_scores = job.prompt_scores, {}
        first = self._scored(job.sequence.tokens[0], Scored(math.nan, (), 0))
        return tuple(self._placed((first, *(scores[at] for at in range(1, job.sequence.prompt_length)))))

    def _placed(self, scores: Iterable[TokenLogprobs]) -> Iterable[TokenLogprobs]:
        """Tokens from the beginning of a text, with what each adds to it."""
        reader = self.tokenizer.detokenizer()
        for one in scores:
            reader.push(one.chosen.token_id)
            yield replace(one, added=reader.added)

    def score_prompt(self, job: Job, chunk: Chunk, logits: Tensor) -> None:
        """``logits`` [rows, vocab] float32 after the first tokens of ``chunk``, each before a token of the prompt."""
        follow = range(chunk.start + 1, chunk.start + 1 + len(logits))
        tokens = [job.sequence.tokens[at] for at in follow]
        counts = [job.sequence.sampling.prompt_logprobs or 0] * len(tokens)
        scores = score(logits, range(len(tokens)), tokens, counts)
        job.prompt_scores.update(zip(follow, map(self._scored, tokens, scores), strict=True))

    def _scored(self, token: int, scored: Scored) -> TokenLogprobs:
        top = tuple(self._logprob(*one) for one in scored.top)
        return TokenLogprobs(self._logprob(token, scored.logprob), top, scored.rank)

    def _logprob(self, token: int, logprob: float) -> Logprob:
        raw = self.tokenizer.token_bytes(token)
        return Logprob(token, raw.decode("utf-8", "replace"), raw, logprob)

    def _output(self, params: SamplingParams, prompt: Tokens[int]) -> Output:
        verbatim = params.grammar is not None  # the text is to be what the grammar has read
        return Output(params, self.tokenizer.eos_token_ids, self.tokenizer.detokenizer(prompt, verbatim))

    def _rules(self, params: SamplingParams, prompt_length: int) -> LogitRules | None:
        for param in ("logit_bias", "allowed_token_ids", "stop_token_ids"):
            tokens = getattr(params, param)
            if tokens and not 0 <= min(tokens) <= max(tokens) < self.vocab_size:
                raise RequestError(f"{param} must name tokens between 0 and {self.vocab_size - 1}.", param)
        final_tokens = self.tokenizer.eos_token_ids | frozenset(params.stop_token_ids)
        bad_words = self.tokenizer.spellings(params.bad_words)
        return LogitRules.of(params, prompt_length, self.vocab_size, final_tokens, bad_words)

    def _replay(self, resume: tuple[int, ...], output: Output, max_tokens: int) -> None:
        """Brings the output to where it was when the last of these tokens was sent."""
        if resume:
            self._check_tokens(resume, "resume")
        for generated, token in enumerate(resume, start=1):
            if output.push(token, last=generated >= max_tokens)[1] is not None:
                raise RequestError("The answer to resume has ended already.", "resume")

    def _follow(self, grammar: GrammarState, tokens: list[int]) -> None:
        try:
            grammar.read(tokens)
        except GrammarError as error:
            raise RequestError("The answer to resume does not follow its grammar.", "resume") from error
        if grammar.complete:
            raise RequestError("The answer to resume has ended already.", "resume")

    def _encode(self, prompt: Prompt, param: str) -> list[int]:
        """Raises RequestError, or ContextLengthError before all of a text that is much too long has been encoded."""
        try:
            tokens = self.tokenizer.encode(prompt, most=self.context_length)
        except PromptTooLongError as error:
            raise self._too_long(f"at least {error.tokens}", param) from None
        self._check_tokens(tokens, param)
        return tokens

    def _check_tokens(self, tokens: Collection[int], param: str) -> None:
        if not tokens:
            raise RequestError("The prompt is empty.", param)
        if min(tokens) < 0 or max(tokens) >= self.vocab_size:
            raise RequestError(f"Token ids must be between 0 and {self.vocab_size - 1}.", param)

    def _max_tokens(self, prompt: int, asked: int | None, param: str) -> int:
        """Tokens that may be generated; without a wish, up to the end of the context."""
        if prompt > self.context_length or (prompt == self.context_length and asked != 0):
            raise self._too_long(str(prompt), param)
        if asked is not None and prompt + asked > self.context_length:
            message = (
                f"This model's maximum context length is {self.context_length} tokens. However, "
                f"you requested {prompt + asked} tokens ({prompt} in the prompt, {asked} in the answer)."
            )
            raise ContextLengthError(message, "max_tokens", "context_length_exceeded")
        return self.context_length - prompt if asked is None else asked

    def _too_long(self, tokens: str, param: str) -> ContextLengthError:
        message = (
            f"This model's maximum context length is {self.context_length} tokens. However, "
            f"your prompt has {tokens} tokens."
        )
        return ContextLengthError(message, param, "context_length_exceeded")
