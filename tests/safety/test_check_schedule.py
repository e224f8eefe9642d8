"""When a text is classified, and what is classified of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety.streaming.check_schedule import CheckSchedule
from safety.streaming.plan import WHOLE_ANSWER, Pace
from safety.streaming.recent_checks import RecentChecks

PACE = Pace(first=4, most=16, window=24, overlap=6, wait_s=1.0)


def test_the_first_piece_is_checked_at_once() -> None:
    schedule = CheckSchedule(PACE)
    schedule.push("H", 0.0)

    due = schedule.begin(0.0)

    assert due is not None
    assert (due.text, due.end) == ("H", 1)


def test_further_checks_need_four_times_as_much_text_each() -> None:
    schedule, sizes, end = CheckSchedule(PACE), [], 0

    for _ in range(200):
        schedule.push("x", 0.0)
        if (due := schedule.begin(0.0)) is not None:
            schedule.finish(due, 0.0)
            sizes.append(due.end - end)
            end = due.end

    assert sizes[:6] == [1, 4, 16, 16, 16, 16]


def test_one_check_runs_at_a_time() -> None:
    schedule = CheckSchedule(PACE)
    schedule.push("first piece", 0.0)
    due = schedule.begin(0.0)
    schedule.push("a second piece, which is long", 0.0)

    assert due is not None
    assert schedule.due_at() is None
    schedule.finish(due, 0.0)
    assert schedule.begin(0.0) is not None


def test_a_sentence_border_makes_a_check_due_early() -> None:
    def due_after(text: str) -> bool:
        schedule = CheckSchedule(PACE)
        for start in (text[:1], text[1:17]):
            schedule.push(start, 0.0)
            due = schedule.begin(0.0)
            assert due is not None
            schedule.finish(due, 0.0)
        schedule.push(text[17:], 0.0)
        return schedule.begin(0.0) is not None

    assert due_after("A sentence of words. So")
    assert not due_after("A sentence of words, So"[:22])


def test_text_that_waits_is_checked_in_the_end() -> None:
    schedule = CheckSchedule(PACE)
    schedule.push("H", 0.0)
    due = schedule.begin(0.0)
    assert due is not None
    schedule.push("e", 5.0)
    schedule.finish(due, 0.0)

    assert schedule.due_at() == 6.0
    assert schedule.begin(5.9) is None
    assert schedule.begin(6.0) is not None


def test_the_rest_is_checked_at_once() -> None:
    schedule = CheckSchedule(PACE)
    schedule.push("H", 0.0)
    due = schedule.begin(0.0)
    assert due is not None
    schedule.finish(due, 0.0)
    schedule.push("i", 0.0, final=True)

    due = schedule.begin(0.0)

    assert due is not None
    schedule.finish(due, 0.0)
    assert schedule.complete


@given(st.lists(st.text("ab. \n", max_size=40), max_size=30), st.lists(st.booleans(), max_size=60))
def test_every_character_is_checked_with_context_and_never_more_often(pieces: list[str], returns: list[bool]) -> None:
    schedule, text, read, running = CheckSchedule(PACE), "", 0, None
    for number, piece in enumerate([*pieces, ""]):
        schedule.push(piece, float(number), final=number == len(pieces))
        text += piece
        if running is not None and (number >= len(returns) or returns[number]):
            schedule.finish(running, 0.0)
            running = None
        if running is None and (due := schedule.begin(float(number))) is not None:
            new = due.end - schedule.approved
            assert text[: due.end].endswith(due.text)
            assert len(due.text) <= max(PACE.window, new + PACE.overlap)
            assert len(due.text) >= min(due.end, PACE.window)
            read += new
            running = due
    if running is not None:
        schedule.finish(running, 0.0)
        if (due := schedule.begin(1e9)) is not None:
            read += due.end - schedule.approved
            schedule.finish(due, 0.0)
    assert read == len(text)
    assert schedule.complete


def test_a_check_that_took_long_is_followed_by_a_rest() -> None:
    schedule = CheckSchedule(PACE)
    schedule.push("H", 10.0)
    due = schedule.begin(10.0)
    assert due is not None
    schedule.push("ello, and much more text than a check needs", 10.05)
    schedule.finish(due, 10.1)

    assert schedule.due_at() == pytest.approx(10.1 + PACE.rest * 0.1)
    schedule.push(".", 10.2, final=True)
    assert schedule.begin(10.2) is not None, "the end of a text never rests"


def next_due_at(recent: RecentChecks, now: float) -> float | None:
    """When the second check of a text is due whose first, at ``now``, is answered from memory."""
    schedule = CheckSchedule(PACE, recent=recent)
    schedule.push("H", now)
    due = schedule.begin(now)
    assert due is not None
    schedule.finish(due, now + 0.0001)
    schedule.push("ello, and much more text than a check needs", now + 0.001)
    return schedule.due_at()


def test_a_check_answered_from_memory_is_followed_by_a_rest_as_long_as_those_of_other_texts() -> None:
    recent = RecentChecks()
    other = CheckSchedule(PACE, recent=recent)
    other.push("Hello", 0.0)
    due = other.begin(0.0)
    assert due is not None
    other.finish(due, 0.1)

    assert next_due_at(recent, 1.0) == pytest.approx(1.0 + PACE.rest * 0.1, abs=0.01)
    assert recent.usual_s(1.0) == pytest.approx(0.1), "a check answered from memory does not count"


def test_a_slow_classifier_of_an_hour_ago_is_no_reason_to_rest() -> None:
    recent = RecentChecks()
    recent.add(2.0, 0.0)

    assert next_due_at(recent, 3600.0) == pytest.approx(3600.0, abs=0.01)


def test_a_rest_is_bounded() -> None:
    schedule = CheckSchedule(PACE)
    schedule.push("H", 0.0)
    due = schedule.begin(0.0)
    assert due is not None
    schedule.push("ello, and much more text than a check needs", 1.0)
    schedule.finish(due, 60.0)

    assert schedule.due_at() == 60.0 + PACE.most_rest_s


def test_a_whole_answer_is_not_checked_for_its_first_words() -> None:
    schedule = CheckSchedule(WHOLE_ANSWER)
    schedule.push("Hello", 0.0)
    assert schedule.begin(0.0) is None
    schedule.push(" there" * 50, 0.1)
    assert schedule.begin(0.1) is not None
