"""``SamplingParams``: how tokens are sampled and when an answer ends; and ``BeamSearch``, the settings of a beam
search."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import compress
from typing import Literal

from engine.errors import RequestError
from engine.structured_output import Grammar

MAX_LOGPROBS = 20  # OpenAI's limit
MAX_CHOICES = 128  # OpenAI's limit
MAX_NGRAM_SIZE = 32  # tokens; each position of a prompt is indexed by an n-gram of this size
MAX_BEAM_WIDTH = 32
MAX_BEAM_STOP_TOKENS = 16  # tokens that end an answer; a beam search ranks one more set of candidates for each


@dataclass(frozen=True, slots=True)
class BeamSearch:
    """Settings of a beam search, which looks for the most probable whole answers and keeps ``width`` hypotheses at a
    time. Search, names and scores are those of transformers: a score is the sum of log probabilities over (tokens **
    ``length_penalty``).

    ``early_stopping`` says when it ends. True: when there are ``width`` finished answers. False: when the best
    unfinished hypothesis is unlikely to become better than the worst of them. ``"never"``: when it cannot become
    better.

    ``do_sample`` draws the next tokens without replacement, over all hypotheses together, after temperature and cuts.

    Raises RequestError, naming the field, for a value out of range.
    """

    width: int = 4
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    do_sample: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.width <= MAX_BEAM_WIDTH:
            raise RequestError(f"A beam search has a width between 1 and {MAX_BEAM_WIDTH}, got {self.width!r}", "beam")
        if not -10.0 <= self.length_penalty <= 10.0:
            raise RequestError("length_penalty must be between -10 and 10", "length_penalty")
        if self.early_stopping not in (True, False, "never"):
            raise RequestError('early_stopping must be true, false or "never"', "early_stopping")


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """The settings for sampling tokens and for the end of an answer. Field names are vLLM's where it has the field,
    else transformers'. The order in which the settings take effect is described in engine/decode/rules.py and
    sampling.py.

    Raises RequestError, naming the field, for a value out of range.
    """

    n: int = 1  # choices: answers to one prompt, which is computed once
    best_of: int | None = None  # answers generated, of which the ``n`` with the best mean log probability are kept
    temperature: float = 1.0  # 0 is greedy
    top_k: int = 0  # 0 or -1: off
    top_p: float = 1.0  # nucleus, Holtzman et al. 2020
    min_p: float = 0.0  # least probability, as a share of the likeliest token's (Nguyen et al. 2024); 0: off
    typical_p: float = 1.0  # mass of tokens with the most typical surprise, locally typical (Meister et al. 2022)
    repetition_penalty: float = 1.0  # on tokens in prompt and answer (Keskar et al. 2019); 1: off
    presence_penalty: float = 0.0  # subtracted from the logits of tokens in the answer (OpenAI)
    frequency_penalty: float = 0.0  # subtracted once per occurrence in the answer (OpenAI)
    no_repeat_ngram_size: int = 0  # no n-gram of prompt and answer occurs twice; 0: off
    logit_bias: Mapping[int, float] = field(default_factory=dict)  # added to the logits of these tokens
    bad_words: tuple[str, ...] = ()  # forbidden as the tokenizer writes them, with and without a space before
    allowed_token_ids: tuple[int, ...] | None = None  # all other tokens are forbidden; None: all are allowed
    logprobs: int | None = None  # 0 to 20: log probabilities of each token and of this many most probable ones
    prompt_logprobs: int | None = None  # the same for prompt tokens; always raw; disables the prefix cache
    logprobs_mode: Literal["raw", "processed"] = "raw"  # the model's, or after rules, temperature and cuts
    grammar: Grammar | None = None  # structured output
    beam: BeamSearch | None = None  # None: no beam search, each answer is sampled
    min_tokens: int = 0  # until then no end-of-sequence token, stop token or stop string ends the answer
    seed: int | None = None  # None: the engine draws one per request
    max_tokens: int | None = None  # None: up to the end of the context; 0: only the prompt is computed and scored
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        def refuse(param: str, rule: str) -> RequestError:
            return RequestError(f"{param} must be {rule}, got {getattr(self, param)!r}", param)

        if not 1 <= self.n <= MAX_CHOICES:
            raise refuse("n", f"between 1 and {MAX_CHOICES}")
        if self.best_of is not None and not self.n <= self.best_of <= MAX_CHOICES:
            raise refuse("best_of", f"between n and {MAX_CHOICES}")
        if not 0.0 <= self.temperature <= 100.0:  # also refuses NaN
            raise refuse("temperature", "between 0 and 100")
        if self.top_k < -1:
            raise refuse("top_k", "-1 or 0 (off) or positive")
        if not 0.0 < self.top_p <= 1.0:
            raise refuse("top_p", "in (0, 1]")
        self._check_rules(refuse)
        if self.beam is not None:
            self._check_beam(self.beam, refuse)
        if self.max_tokens is not None and self.max_tokens < (0 if self.beam is None else 1):
            raise refuse("max_tokens", "at least 0, or 1 for a beam search")
        if not 0 <= self.min_tokens <= (self.min_tokens if self.max_tokens is None else self.max_tokens):
            raise refuse("min_tokens", "between 0 and max_tokens")
        if self.seed is not None and not -(2**63) <= self.seed < 2**63:
            raise refuse("seed", "a 64-bit signed integer")
        if any(not s for s in self.stop):
            raise refuse("stop", "made of strings that are not empty")

    @property
    def choices(self) -> int:
        """Number of answers that are generated for the prompt: ``best_of``, else ``n``."""
        return self.best_of or self.n

    @property
    def side_by_side(self) -> int:
        """Number of sequences of the request that are generated at the same time: one per choice, or one per beam."""
        return self.choices if self.beam is None else self.beam.width

    @property
    def records_logprobs(self) -> bool:
        """Whether the engine records log probabilities: requested by ``logprobs``, or needed by ``best_of`` to rank."""
        return self.logprobs is not None or self.choices > self.n

    def _check_beam(self, beam: BeamSearch, refuse: Callable[[str, str], RequestError]) -> None:
        """Raises RequestError, made by ``refuse``, for settings that a beam search does not support."""
        if self.best_of is not None:
            raise refuse("best_of", "None: a beam search has a width")
        if self.n > beam.width:
            raise refuse("n", f"at most the width of the search, {beam.width}")
        if self.logprobs_mode != "raw":
            raise refuse("logprobs_mode", "raw for a beam search")
        if beam.do_sample:
            if self.temperature == 0:
                raise refuse("temperature", "above 0 for a beam search that samples")
            return
        if self.temperature not in (0, 1):
            raise refuse("temperature", "0 or 1 for a beam search that does not sample")
        cuts = (self.top_k > 0, self.top_p < 1, self.min_p > 0, self.typical_p < 1)
        for param in compress(("top_k", "top_p", "min_p", "typical_p"), cuts):
            raise refuse(param, "off for a beam search that does not sample")

    def _check_rules(self, refuse: Callable[[str, str], RequestError]) -> None:
        """Raises RequestError, made by ``refuse``, for values out of range."""
        if not 0.0 <= self.min_p <= 1.0:
            raise refuse("min_p", "between 0 and 1")
        if not 0.0 < self.typical_p <= 1.0:
            raise refuse("typical_p", "in (0, 1]")
        if not (self.repetition_penalty > 0 and math.isfinite(self.repetition_penalty)):
            raise refuse("repetition_penalty", "a positive number")
        for param in ("presence_penalty", "frequency_penalty"):
            if not math.isfinite(getattr(self, param)):
                raise refuse(param, "a finite number")
        if not 0 <= self.no_repeat_ngram_size <= MAX_NGRAM_SIZE:
            raise refuse("no_repeat_ngram_size", f"between 0 (off) and {MAX_NGRAM_SIZE}")
        if not all(math.isfinite(bias) for bias in self.logit_bias.values()):
            raise refuse("logit_bias", "made of finite numbers")
        if any(not word for word in self.bad_words):
            raise refuse("bad_words", "made of strings that are not empty")
        for param in ("logprobs", "prompt_logprobs"):
            value = getattr(self, param)
            if value is not None and not 0 <= value <= MAX_LOGPROBS:
                raise refuse(param, f"between 0 and {MAX_LOGPROBS}")
        if self.logprobs_mode not in ("raw", "processed"):
            raise refuse("logprobs_mode", "raw or processed")
        if self.allowed_token_ids is not None and not self.allowed_token_ids:
            raise refuse("allowed_token_ids", "None or not empty")
