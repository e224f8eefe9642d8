"""``compress``: shortens messages to the sentences that are most relevant to the last turn. Pure.

Older turns are shortened first. If the last turn alone does not fit, its question is kept, and the rest of the user's
message and the results of its tools are shortened too. A turn of which no sentence is kept is dropped whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from router.prompts.conversation_units import droppable, last_user_place, units_of
from router.prompts.prompt_size import message_characters
from router.prompts.relevance import Relevance, relevance
from router.prompts.shortened_conversation import ShortenedConversation, ShorteningTask
from router.prompts.text_segments import GAP, MAX_GAP, Kind, Segment, joined, segments_of

MIN_QUESTION = 400  # characters at the end of the last message that are taken for the question
MAX_SEGMENTS = 4_000  # of a conversation, about; each takes 20 µs to rank
MAX_QUESTION = 4_000  # characters of a question whose words are looked for


@dataclass(slots=True)
class _Body:
    """The content of a message that may be shortened. ``kept`` are the places of its segments that stay."""

    place: int
    segments: Sequence[Segment]
    kept: set[int] = field(default_factory=set)


def compress(task: ShorteningTask, score: Relevance = relevance) -> ShortenedConversation | None:
    """Returns the conversation with its messages shortened; None if it does not fit even so. ``score`` returns the
    relevance of each segment to the question."""
    if (whole := ShortenedConversation.whole(task)).fits:
        return whole
    groups = droppable(units_of(task.messages, task.fixed))
    return _compressed(task, groups, (), score) or _compressed(task, groups, _of_last_turn(task, groups), score)


def question_of(task: ShorteningTask) -> str:
    """Returns the text to which segments are compared: the first sentence and the end of the user's last message."""
    place = last_user_place(task.messages, task.fixed)
    if place is None:
        return task.messages[-1].content[-MAX_QUESTION:] if task.messages else ""
    segments = segments_of(task.messages[place].content, grain_of(task))
    return "".join(segments[each].text for each in sorted(ends_of(segments)))[-MAX_QUESTION:]


def grain_of(task: ShorteningTask) -> int:
    """Returns the minimum length of a segment, in characters, with which a conversation has about MAX_SEGMENTS."""
    return sum(len(message.content) for message in task.messages) // MAX_SEGMENTS


def ends_of(segments: Sequence[Segment]) -> set[int]:
    """Returns the indices of the segments that likely have the question: the first sentence, and the last MIN_QUESTION
    characters."""
    kept, size = set[int](), 0
    for place in reversed(range(len(segments))):
        if kept and size + len(segments[place].text) > MIN_QUESTION:
            break
        kept.add(place)
        size += len(segments[place].text)
    if segments and segments[0].kind is Kind.SENTENCE and len(segments[0].text) <= MIN_QUESTION:
        kept.add(0)
    return kept


def _of_last_turn(task: ShorteningTask, groups: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Returns the places of the user's last message and of the results of tools that are pinned."""
    loose = {place for group in groups for place in group}
    question = last_user_place(task.messages, task.fixed)
    return tuple(
        place
        for place, message in enumerate(task.messages)
        if place == question or (message.role == "tool" and place not in loose and place not in task.fixed)
    )


def _compressed(
    task: ShorteningTask, groups: Sequence[tuple[int, ...]], pinned: Sequence[int], score: Relevance
) -> ShortenedConversation | None:
    """Returns the conversation with the messages of ``groups`` and those at ``pinned`` shortened."""
    messages = task.messages
    group_of = {place: number for number, group in enumerate(groups) for place in group}
    bodies = {
        place: _Body(place, segments_of(messages[place].content, grain_of(task))) for place in (*group_of, *pinned)
    }
    question = last_user_place(messages, task.fixed)
    if question is not None and question in bodies:
        bodies[question].kept = ends_of(bodies[question].segments)
    left = task.spare - sum(message_characters(each) for place, each in enumerate(messages) if place not in bodies)
    left -= sum(_frame(task, bodies[place]) for place in pinned)
    if left < 0:
        return None
    opened: set[int] = set()
    for place, at in _ranked(list(bodies.values()), question_of(task), score):
        body, group = bodies[place], group_of.get(place)
        added = {at} | ({heading} if (heading := body.segments[at].heading) is not None else set()) - body.kept
        cost = sum(len(body.segments[each].text) + MAX_GAP for each in added - body.kept)
        if group is not None and group not in opened:
            cost += sum(_frame(task, bodies[each]) for each in groups[group])
        if cost > left:
            continue
        left -= cost
        body.kept |= added
        if group is not None:
            opened.add(group)
    contents = {
        place: joined(bodies[place].segments, bodies[place].kept) if place in bodies else message.content
        for place, message in enumerate(messages)
        if place not in group_of or group_of[place] in opened
    }
    made = ShortenedConversation(task, contents)
    return made if made.fits else None


def _frame(task: ShorteningTask, body: _Body) -> int:
    """Returns the characters of a message beside its segments that are not kept yet."""
    message = task.messages[body.place]
    kept = sum(len(body.segments[each].text) + MAX_GAP for each in body.kept)
    return message_characters(message) - len(message.content) + kept + len(GAP) + MAX_GAP


def _ranked(bodies: Sequence[_Body], question: str, score: Relevance) -> list[tuple[int, int]]:
    """Returns the place of each segment that is not kept yet, with that of its message: what has most to do with
    ``question`` first, then what was said last."""
    places = [
        (body.place, at)
        for body in bodies
        for at, segment in enumerate(body.segments)
        if at not in body.kept and (segment.kind is not Kind.HEADING or len(body.segments) == 1)
    ]
    texts = {body.place: body.segments for body in bodies}
    scores = score(question, [texts[place][at].text for place, at in places])
    ranked = sorted(zip(scores, places, strict=True), key=lambda each: (-each[0], [-n for n in each[1]]))
    return [place for _, place in ranked]
