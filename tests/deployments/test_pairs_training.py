"""The training data of the pair model: cuts by components, rules that change what they say they change."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from deployments.models.training.pairs import sources, written
from deployments.models.training.pairs.edits import (
    NameSwaps,
    edit_direction,
    edit_family,
    edit_negation,
    edit_number,
    edit_opposite,
    exchange_words,
)
from deployments.models.training.pairs.frames import Frames
from deployments.models.training.pairs.loop import Item, batches, length, rate
from deployments.models.training.pairs.mix import CALIBRATION, TEST, edited, edited_alike, requests
from deployments.models.training.pairs.model import MAX_TOKENS, collate, joined, pair_model
from deployments.models.training.pairs.pair import Pair, normal
from deployments.models.training.pairs.requests import RULES
from deployments.models.training.pairs.retyped import retyped
from deployments.models.training.pairs.splits import components, cut, without_near_duplicates
from deployments.models.training.pairs.transitive import MAX_GROUP, transitive
from load_tests.cache.opposites import opposites

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
FAQ = Path(__file__).resolve().parents[2] / "load_tests" / "cache" / "faq_paraphrases.json"
RNG = random.Random


def pair(one: str, other: str, same: int = 1) -> Pair:
    return Pair(one, other, same, "test")


def test_pairs_that_share_a_question_by_way_of_others_are_one_component() -> None:
    pairs = [pair("a", "b"), pair("c", "d"), pair("B?", "e"), pair("E", "f", 0), pair("g", "h")]
    names = components(pairs)
    assert names[0] == names[2] == names[3]
    assert len(set(names)) == 3


def test_no_question_is_on_two_sides_and_a_cut_is_repeatable() -> None:
    rng = RNG(0)
    pairs = [pair(str(rng.randint(0, 900)), str(rng.randint(0, 900))) for _ in range(300)]
    parts = cut(pairs, (0.3, 0.2))
    texts = [{normal(text) for each in part for text in (each.text_a, each.text_b)} for part in parts]
    assert all(parts)
    assert sum(map(len, texts)) == len(set.union(*texts))
    assert cut(pairs, (0.3, 0.2)) == parts


def test_near_duplicates_of_what_is_kept_apart_are_left_out() -> None:
    kept = [pair("How do I learn to play the piano as an adult beginner?", "x")]
    pairs = [
        pair("how do i learn to play the piano as an adult beginner", "y"),
        pair("Why is the sky blue today?", "z"),
    ]
    assert without_near_duplicates(pairs, kept) == pairs[1:]


@pytest.mark.parametrize(
    ("edit", "text", "expected"),
    [
        (edit_direction, "How do I fly from Paris to Rome?", "How do I fly from Rome to Paris?"),
        (edit_opposite, "Enable comments", "Disable comments"),
        (edit_negation, "Why isn't it safe?", "Why is it safe?"),
        (NameSwaps(["Rome"]), "Is it in Paris now?", "Is it in Rome now?"),
        (edit_number, "nothing to count", None),
        (edit_direction, "nothing to turn", None),
    ],
)
def test_an_edit_changes_one_thing(edit: Callable[[str, RNG], str | None], text: str, expected: str | None) -> None:
    assert edit(text, RNG(0)) == expected


@pytest.mark.parametrize("edit", [edit_number, edit_family, edit_opposite, edit_negation, exchange_words])
def test_an_edit_never_returns_the_text_itself(edit: Callable[[str, RNG], str | None]) -> None:
    text = "Is the best train from London on Monday before 10 always cheaper than the bus that London had in 1999?"
    for seed in range(100):
        changed = edit(text, RNG(seed))
        assert changed != text
        assert changed is not None or edit is exchange_words  # two words that it drew are neighbours


def test_the_same_edit_on_both_sides_leaves_a_pair_the_same() -> None:
    pairs = [pair(f"Is {number} a prime?", f"is the number {number} prime") for number in range(20, 60)]
    made = edited_alike(pairs, edit_number, "alike", 20, RNG(0))
    assert len(made) == 20
    for each in made:
        numbers = [set(filter(str.isdigit, text.replace("?", "").split())) for text in (each.text_a, each.text_b)]
        assert each.same == 1
        assert numbers[0] == numbers[1]
    assert not any(each.same for each in edited(pairs, edit_number, "edit", 20, RNG(0)))


BY_NAME = {rule.__name__: rule for rule in RULES}


@pytest.mark.parametrize("rule", BY_NAME.values(), ids=BY_NAME.keys())
def test_a_request_differs_from_its_others(rule: Callable[[Frames], object]) -> None:
    for seed in range(60):
        request = rule(Frames(RNG(seed)))
        texts = [request.said, request.again, *request.others]  # type: ignore[attr-defined]
        assert all(text and "{" not in text for text in texts), texts
        assert not {normal(text) for text in texts[:2]} & {normal(text) for text in texts[2:]}, texts


def test_requests_are_of_both_kinds_and_share_no_text_with_the_measured_opposites() -> None:
    made = requests(3000, RNG(0))
    assert 0.3 < sum(each.same for each in made) / len(made) < 0.6
    measured = {normal(text) for each in opposites() for text in each.pair[:2]}
    assert not measured & {normal(text) for each in made for text in (each.text_a, each.text_b)}


def test_retyping_is_repeatable_and_keeps_the_numbers() -> None:
    text = "What is the best way to learn 2 languages without moving to another country?"
    for seed in range(50):
        assert retyped(text, RNG(seed)) == retyped(text, RNG(seed))
        assert "2" in retyped(text, RNG(seed))


def test_a_pair_is_cut_where_it_is_longest() -> None:
    short = joined([1, 2], [3])
    assert short.tokens[1:3] == [1, 2]
    assert short.first == 4
    long = joined(list(range(200)), [7] * 10)
    assert len(long.tokens) == MAX_TOKENS
    assert long.tokens.count(7) >= 10


def test_the_second_text_has_token_type_1_and_padding_none() -> None:
    _, mask, types = collate([joined([5], [6]), joined([5, 5, 5], [6])])
    assert types.tolist() == [[0, 0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 0, 1, 1]]
    assert mask.tolist()[0] == [True] * 5 + [False] * 2


def test_token_types_and_order_matter_to_the_model() -> None:
    torch.manual_seed(0)
    model = pair_model().eval()
    with torch.inference_mode():
        one, other = (model(*collate([joined(*each)])) for each in (([5, 9], [6]), ([6], [5, 9])))
    assert not torch.allclose(one, other)


def test_batches_hold_all_items_once_an_epoch_in_like_lengths() -> None:
    items = [Item([1] * (1 + number % 30), [2] * 5, number % 2) for number in range(500)]
    seen: list[Item] = []
    for batch in batches(items, RNG(0)):
        assert max(map(length, batch)) - min(map(length, batch)) <= 12
        seen += batch
        if len(seen) >= 500:
            break
    assert sorted(map(length, seen)) == sorted(map(length, items))


def test_the_learning_rate_rises_and_falls_to_nothing() -> None:
    rates = [rate(done / 100, 0.05) for done in range(101)]
    assert max(rates) == pytest.approx(1, abs=0.03)
    assert rates[0] < 0.05
    assert rates[-1] == 0


@pytest.mark.skipif(not DATA.exists(), reason="the data sets are not there")
def test_the_calibration_cut_has_ten_thousand_pairs() -> None:
    calibration, test, training = cut(sources.quora(DATA), (CALIBRATION, TEST))
    assert len(calibration) >= 10_000
    assert len(test) >= 3_500
    assert len(training) > 40_000


def test_labels_follow_from_what_is_the_same_by_way_of_a_third_question() -> None:
    labelled = [pair("a", "b"), pair("b", "c"), pair("c", "x", 0), pair("d", "e")]
    made = transitive(labelled, "follows", 100, RNG(0))
    found = {(frozenset((each.text_a, each.text_b)), each.same) for each in made}
    assert found == {(frozenset("ac"), 1), (frozenset("ax"), 0), (frozenset("bx"), 0)}


def test_what_somebody_labelled_is_never_labelled_by_others() -> None:
    labelled = [pair("a", "b"), pair("b", "c"), pair("A?", "c", 0)]
    assert not [
        each for each in transitive(labelled, "follows", 100, RNG(0)) if {each.text_a, each.text_b} == {"a", "c"}
    ]
    assert all(normal(each.text_a) != normal(each.text_b) for each in transitive(labelled, "follows", 100, RNG(0)))


def test_nothing_follows_from_a_group_so_large_that_a_wrong_label_may_have_joined_it() -> None:
    chain = [pair(str(number), str(number + 1)) for number in range(MAX_GROUP + 2)]
    assert transitive(chain, "follows", 100, RNG(0)) == []
    assert transitive(chain[: MAX_GROUP - 1], "follows", 100, RNG(0))


def test_written_groups_are_of_many_domains_and_no_text_is_in_two_places() -> None:
    found = written.groups()
    texts = [normal(text) for group in found for text in (*group.same, *group.near)]
    assert len({group.domain for group in found}) >= 30
    assert len(set(texts)) == len(texts)
    measured = {normal(text) for each in opposites() for text in each.pair[:2]}
    faq = json.loads(FAQ.read_text(encoding="utf-8")).values()
    assert not set(texts) & (measured | {normal(text) for text in faq})


def test_domains_that_are_kept_apart_are_not_drawn() -> None:
    kept, rest = written.cut_by_domain(written.groups(), 0.15)
    assert kept
    assert not {group.domain for group in kept} & {group.domain for group in rest}
    assert not {pair.text_a for group in kept for pair in written.pairs_of(group, RNG(0))} & {
        pair.text_a for pair in written.drawn(rest, 4000, RNG(0))
    }


def test_written_groups_are_drawn_as_written_and_again_retyped() -> None:
    groups = written.groups()[:10]
    made = written.drawn(groups, 140, RNG(0))
    once = len(made) // 2
    asked = {text for group in groups for text in (*group.same, *group.near)}
    assert len(made) == 140
    assert {text for each in made[:once] for text in (each.text_a, each.text_b)} <= asked
    assert not {each.text_b for each in made[once:]} <= asked
    assert sum(each.same for each in made[:once]) == 30
