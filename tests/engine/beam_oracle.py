"""transformers' beam search in float64, and how clear each of its decisions was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM, LogitsProcessor, LogitsProcessorList

from engine.api import BeamSearch
from engine.decode.random import gumbel
from engine.seeds import choice_seed
from tests.engine.margins import MIN_MARGIN, Tokens

_NO_CANDIDATE = -1e8
"""transformers takes 1e9 off the scores of what is no candidate."""


class Hypotheses(NamedTuple):
    """The answers to one prompt, best first: their tokens, their scores, and the smallest margin of all decisions that
    led to them."""

    answers: list[tuple[Tokens, float]]
    margin: float


class BeamOracle:
    """``ends`` are the tokens that end a hypothesis; answers have up to ``max_tokens`` tokens."""

    def __init__(self, directory: Path, ends: Sequence[int], max_tokens: int) -> None:
        self._model = _model(directory)
        self._ends = list(ends)
        self._max_tokens = max_tokens
        self._known: dict[object, Hypotheses] = {}

    def answers(self, prompt: Sequence[int], beam: BeamSearch, seed: int = 0, **settings: Any) -> Hypotheses:
        """Keywords are further settings of ``generate``. Beam sampling draws by the engine's noise."""
        key = (tuple(prompt), beam, seed if beam.do_sample else 0, tuple(settings.items()))
        if key not in self._known:
            self._known[key] = self._search(prompt, beam, seed, settings)
        return self._known[key]

    def _search(self, prompt: Sequence[int], beam: BeamSearch, seed: int, settings: dict[str, Any]) -> Hypotheses:
        ids = torch.tensor([prompt])
        watch = _Watch(beam)
        cuts = _Cuts({"temperature": 1.0, "top_k": 0, "top_p": 1.0} | settings)
        self._model.watch = watch
        with pytest.MonkeyPatch.context() as patch:
            if beam.do_sample:
                patch.setattr("torch.multinomial", _Noise(seed, len(prompt), beam.width, watch, cuts))
            output = self._model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                num_beams=beam.width,
                num_return_sequences=beam.width,
                length_penalty=beam.length_penalty,
                early_stopping=beam.early_stopping,
                do_sample=beam.do_sample,
                max_new_tokens=self._max_tokens,
                eos_token_id=self._ends,
                pad_token_id=self._ends[0],
                return_dict_in_generate=True,
                output_scores=True,
                logits_processor=LogitsProcessorList([cuts]),
                **({"top_k": 0} if beam.do_sample else {}) | settings,
            )
        rows = output.sequences[:, len(prompt) :].tolist()
        scores = output.sequences_scores.tolist()
        return Hypotheses([(self._whole(row), score) for row, score in zip(rows, scores, strict=True)], watch.margin)

    def clear_answers(
        self, prompts: Iterator[Tokens], count: int, beam: BeamSearch, **settings: Any
    ) -> Iterator[tuple[Tokens, int, Hypotheses]]:
        """The first ``count`` of ``prompts`` in which no decision can be turned by rounding, each with its seed, which
        is its place, and its answers."""
        for seed, prompt in enumerate(prompts):
            found = self.answers(prompt, beam, seed, **settings)
            if found.margin >= MIN_MARGIN:
                yield prompt, seed, found
                count -= 1
            if count == 0:
                return
        raise AssertionError(f"{count} prompts too few are clear")

    def _whole(self, row: list[int]) -> Tokens:
        """Up to its end, without padding."""
        end = next((at for at, token in enumerate(row) if token in self._ends), len(row) - 1)
        return tuple(row[: end + 1])


@cache
def _model(directory: Path) -> Any:
    return _WatchedLlama.from_pretrained(directory, local_files_only=True, dtype=torch.float64)


class _Watch:
    """The smallest margin of one search."""

    def __init__(self, beam: BeamSearch) -> None:
        self._beam = beam
        self.margin = float("inf")

    def note(self, margin: float) -> None:
        self.margin = min(self.margin, margin)

    def border(self, scores: Tensor, kept: int) -> None:
        """Which ``kept`` of ``scores`` are the largest decides, not their order."""
        self._gaps(scores, kept + 1, kept - 1)

    def order(self, scores: Tensor, kept: int) -> None:
        """Which ``kept`` of ``scores`` are the largest decides, and their order."""
        self._gaps(scores, kept + 1, 0)

    def _gaps(self, scores: Tensor, most: int, first: int) -> None:
        best = scores.flatten().topk(min(most, scores.numel())).values
        best = best[best > _NO_CANDIDATE]
        gaps = (best[:-1] - best[1:])[first:]
        if len(gaps):
            self.note(float(gaps.min()))

    def candidates(self, scores: Tensor, count: int) -> None:
        """All continuations of a step, by what they are ranked by: the first ``width`` may end, and ``count`` are
        looked at."""
        self.border(scores, self._beam.width)
        if self._beam.do_sample:
            self.border(scores, count)

    def running(self, scores: Tensor) -> None:
        """Those that do not end. Sampled beams draw by their place."""
        (self.order if self._beam.do_sample else self.border)(scores, self._beam.width)

    def finished(self, scores: Tensor) -> None:
        self.order(scores, self._beam.width)

    def stop(self, running: Tensor, worst: Tensor) -> None:
        """A search ends when the best running score is not above the worst finished one."""
        if float(worst) > _NO_CANDIDATE:
            self.note(abs(float(running) - float(worst)))


class _WatchedLlama(LlamaForCausalLM):
    """Overrides the steps of ``_beam_search`` in which something is decided, which it calls by keywords, to watch
    them."""

    watch: _Watch

    def _get_top_k_continuations(self, **values: Any) -> Any:  # type: ignore[override]
        if not values["do_sample"]:  # else _Noise knows what they are ranked by
            self.watch.candidates(values["accumulated_log_probs"], values["beams_to_keep"])
        return super()._get_top_k_continuations(**values)

    def _get_running_beams_for_next_iteration(self, **values: Any) -> Any:  # type: ignore[override]
        self.watch.running(values["topk_log_probs"] - 1e9 * values["next_token_hits_stopping_criteria"])
        return super()._get_running_beams_for_next_iteration(**values)

    def _update_finished_beams(self, **values: Any) -> Any:  # type: ignore[override]
        length = values["cur_len"] + 1 - values["decoder_prompt_len"]
        ended = values["next_token_hits_stopping_criteria"] & values["top_num_beam_mask"]
        full = values["is_sent_finished"].all() & (values["early_stopping"] is True)
        counts = ended & values["is_early_stop_heuristic_unsatisfied"] & ~full
        scores = values["topk_log_probs"] / length ** values["length_penalty"] - 1e9 * ~counts
        self.watch.finished(torch.cat((values["beam_scores"], scores), 1))
        return super()._update_finished_beams(**values)

    def _check_early_stop_heuristic(self, **values: Any) -> Any:  # type: ignore[override]
        longest = values["early_stopping"] == "never" and values["length_penalty"] > 0
        length = (values["max_length"] if longest else values["cur_len"]) - values["decoder_prompt_len"]
        if values["is_sent_finished"].all():
            best = values["running_beam_scores"][0, 0] / length ** values["length_penalty"]
            self.watch.stop(best, values["beam_scores"].min())
        return super()._check_early_stop_heuristic(**values)


class _Cuts(LogitsProcessor):
    """Called before top-k and top-p: keeps the log probabilities [beams, vocab] that they cut, tempered."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._temperature, self._top_k, self._top_p = (settings[name] for name in ("temperature", "top_k", "top_p"))
        self.scores = torch.empty(0)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.scores = scores / self._temperature
        return scores

    def margins(self, kept: Tensor) -> Tensor:
        """How far each token is from the border of the cut that keeps or drops it, in units of logits; ``kept`` and
        the result are [beams, vocab]."""
        ordered, tokens = self.scores.double().sort(-1, descending=True)
        count = kept.sum(-1, keepdim=True)  # the likeliest are kept
        if self._top_k:
            last = ordered.gather(1, (count - 1).clamp(min=0))
            first_cut = ordered.gather(1, count.clamp(max=ordered.shape[1] - 1))
            return torch.where(kept, self.scores - first_cut, last - self.scores)
        if self._top_p < 1:
            before = (ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)).clamp(1e-12, 1 - 1e-12)
            margins = (before.logit() - torch.tensor(self._top_p, dtype=torch.float64).logit()).abs() / 2
            return torch.empty_like(margins).scatter_(1, tokens, margins)
        return torch.full_like(ordered, torch.inf)


class _Noise:
    """Draws as the engine does, in the place of ``torch.multinomial``: without replacement, by Gumbel noise of its seed
    and position."""

    def __init__(self, seed: int, position: int, width: int, watch: _Watch, cuts: _Cuts) -> None:
        self._seed, self._position, self._width = seed, position, width
        self._watch, self._cuts = watch, cuts

    def __call__(self, probabilities: Tensor, num_samples: int) -> Tensor:
        seeds = [choice_seed(self._seed, beam) for beam in range(self._width)]
        vocab = probabilities.shape[1] // self._width
        noise = gumbel(seeds, [self._position] * self._width, torch.arange(vocab).unsqueeze(0))
        self._position += 1
        ranks = probabilities.log() + noise.view(1, -1)
        self._watch.candidates(ranks.where(ranks.isfinite(), -1e9), num_samples)
        self._note_cuts(probabilities.view(self._width, vocab), ranks.view(self._width, vocab), noise, num_samples)
        return ranks.topk(num_samples).indices

    def _note_cuts(self, probabilities: Tensor, ranks: Tensor, noise: Tensor, drawn: int) -> None:
        """A token near the border of a cut matters if it is drawn, or would be if it were not cut."""
        kept = probabilities > 0
        live = kept.any(-1, keepdim=True)  # at first all but one beam count for nothing
        shift = (ranks - noise - self._cuts.scores).where(kept, -torch.inf).amax(-1, keepdim=True)  # of the whole beam
        uncut = self._cuts.scores + noise + shift.where(live, -torch.inf)
        last = ranks.flatten().topk(drawn).values[-1]
        matter = live & (uncut >= last - MIN_MARGIN)
        margins = self._cuts.margins(kept)[matter]
        if len(margins):
            self._watch.note(float(margins.min()))
