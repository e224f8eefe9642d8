"""What tests know of how clear their choices are."""

from __future__ import annotations

import pytest
import torch

from engine import SamplingParams
from engine.decode import sampling
from engine.decode.sampling import Draw, sample
from tests.engine.margins import MIN_MARGIN, Choices, clear_choices, draw_margins

VOCAB = 50
GREEDY = SamplingParams(temperature=0)


def draw(params: SamplingParams = GREEDY, position: int = 3) -> Draw:
    return Draw(params, seed=5, position=position, tokens=[7] * 3)


def logits(*likeliest: float) -> torch.Tensor:
    """One row [1, VOCAB] whose largest numbers are these, far above the others."""
    row = torch.linspace(-20, -10, VOCAB)
    row[: len(likeliest)] = torch.tensor(likeliest)
    return row.unsqueeze(0)


def test_a_greedy_margin_is_the_gap_to_the_second() -> None:
    assert draw_margins(logits(1.0, 0.75, 3.0), [draw()]) == [2.0]


def test_noise_makes_a_gap_of_equals() -> None:
    params = SamplingParams(seed=5)

    [margin] = draw_margins(logits(1.0, 1.0), [draw(params)])

    assert margin > MIN_MARGIN


@pytest.mark.parametrize(
    ("cut", "row"),
    [
        ({"top_k": 1}, logits(1.0, 1.0 - 1e-6)),
        ({"top_p": 0.5}, logits(1.0, 1.0 - 1e-6)),
        ({"min_p": 1.0}, logits(1.0, 1.0 - 1e-6)),
    ],
    ids=["top_k", "top_p", "min_p"],
)
def test_a_token_on_the_border_of_a_cut_that_would_win_is_unclear(cut: dict[str, float], row: torch.Tensor) -> None:
    """Of two equals a cut keeps one, and for some of the positions noise prefers the other."""
    margins = [draw_margins(row, [draw(SamplingParams(seed=5, **cut), at)])[0] for at in range(20)]  # type: ignore[arg-type]

    assert 0 < margins.count(0.0) < 20


def test_choices_are_noted_where_the_engine_draws(choices: Choices) -> None:
    sample(logits(1.0, 1.0 - 1e-6), [draw()])
    sample(logits(1.0, 0.0), [draw()])
    sample(logits(1.0, 1.0 - 1e-6), [draw(position=4)])  # after a guess

    assert list(choices.close) == [(7, 7, 7)]
    with pytest.raises(AssertionError, match="rounding might turn 1 choices"):
        choices.check()


def test_what_has_no_seed_is_compared_with_nothing(choices: Choices) -> None:
    sample(logits(1.0, 1.0).repeat(30, 1), [draw(SamplingParams(top_p=0.5))] * 30)

    choices.check()


def test_answers_are_compared_up_to_the_first_unclear_choice(choices: Choices) -> None:
    choices.close[1, 2, 8] = 1e-3

    choices.same([[1, 2]], [(8, 9, 9)], [(8, 4, 4)], share=0.3)
    with pytest.raises(AssertionError, match="1 tokens were compared"):
        choices.same([[1, 2]], [(8, 9, 9)], [(8, 4, 4)], share=0.5)
    with pytest.raises(AssertionError):
        choices.same([[1, 2]], [(3, 9, 9)], [(8, 4, 4)], share=0.3)


def test_nothing_after_an_unclear_choice_counts() -> None:
    assert clear_choices([1.0, 0.5, 1e-5, 1.0]) == 2
    assert clear_choices([float("nan"), 1.0]) == 0


def test_drawing_itself_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    params = SamplingParams(seed=5, top_p=0.9)
    row = torch.randn(1, VOCAB, generator=torch.Generator().manual_seed(0))
    expected = sampling.draw_tokens(row, [draw(params)], [0])

    Choices(monkeypatch)

    assert sampling.draw_tokens(row, [draw(params)], [0]) == expected
