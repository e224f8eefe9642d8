"""Requests about two parties. With the two exchanged they ask something else, unless a relation holds both ways."""

from __future__ import annotations

from typing import Final

from deployments.models.training.pairs.frames import Frames, Request
from deployments.models.training.pairs.wording import FAMILIES

ROLES: Final = (
    ("Does {a} report to {b}?", "Is {a} one of the people who report to {b}?"),
    ("Did {a} beat {b}?", "Has {a} won against {b}?"),
    ("Does {a} owe {b} money?", "Is {a} in debt to {b}?"),
    ("Is {a} older than {b}?", "Is {a} of a greater age than {b}?"),
    ("Did {a} teach {b}?", "Was {a} the teacher of {b}?"),
    ("Does {a} love {b}?", "Is {a} in love with {b}?"),
    ("Did {a} sell the house to {b}?", "Was it {a} who sold the house to {b}?"),
    ("Why did {a} call {b}?", "What did {a} call {b} for?"),
    ("Is {a} bigger than {b}?", "Is the size of {a} greater than that of {b}?"),
    ("Did {a} hire {b}?", "Was {b} hired by {a}?"),
    ("Does {a} depend on {b}?", "Is {b} something that {a} depends on?"),
    ("Can {a} replace {b}?", "Can {b} be replaced by {a}?"),
    ("How do I migrate from {a} to {b}?", "What are the steps for moving to {b} from {a}?"),
    ("Does {a} cause {b}?", "Is {b} caused by {a}?"),
    ("Should I switch from {a} to {b}?", "Is it worth leaving {a} for {b}?"),
    ("Is {a} better than {b}?", "Does {a} beat {b}?"),
    ("Why is {a} more popular than {b}?", "What makes {a} more popular than {b}?"),
    ("Did {a} come before {b}?", "Was {a} earlier than {b}?"),
    ("How does {a} affect {b}?", "What is the effect of {a} on {b}?"),
    ("How do I import {a} into {b}?", "Import {a} into {b}: how?"),
    ("Did {a} buy {b}?", "Was {b} bought by {a}?"),
    ("Who told {a} about {b}?", "From whom did {a} learn about {b}?"),
    ("How can {a} learn from {b}?", "What can {a} learn from {b}?"),
    ("Is {a} part of {b}?", "Does {b} include {a}?"),
)
EVEN: Final = (
    ("What is the difference between {a} and {b}?", "How do {a} and {b} differ?"),
    ("Is {a} married to {b}?", "Are {a} and {b} married?"),
    ("Compare {a} and {b}", "{a} vs {b}"),
    ("Which is better, {a} or {b}?", "Should I choose {a} or {b}?"),
    ("What do {a} and {b} have in common?", "In what are {a} and {b} alike?"),
    ("How far is {a} from {b}?", "What is the distance between {a} and {b}?"),
    ("Can I use {a} and {b} together?", "Is it possible to combine {a} with {b}?"),
    ("Are {a} and {b} related?", "Is there a relation between {a} and {b}?"),
)
PARTIES: Final = (
    "places",
    "names",
    "tools",
    "companies",
    "people",
    "coding",
    "formats",
    "drinks",
    "animals",
    "subjects",
    "sports",
    "planets",
)


def translation(draw: Frames) -> Request:
    one, other, third = draw.rng.sample(FAMILIES["tongues"], 3)
    phrase, another = draw.rng.choice(("tasks", "chores")), draw.one("objects")
    phrase = draw.one(phrase)
    frames = (
        'Translate "{p}" from {a} to {b}',
        'Translate "{p}" into {b} from {a}',
        'From {a} to {b}, please: "{p}"',
        '{a} to {b} translation of "{p}"',
    )

    def text(p: str, a: str, b: str) -> str:
        return draw.rng.choice(frames).replace("{p}", p).replace("{a}", a).replace("{b}", b)

    return Request(
        text(phrase, one, other),
        text(phrase, one, other),
        (text(phrase, other, one), text(phrase, one, third), text(another, one, other)),
    )


def journey(draw: Frames) -> Request:
    one, other, third = draw.rng.sample(FAMILIES["places"], 3)
    day, another = draw.two(draw.rng.choice(("weekdays", "months")))
    how = draw.rng.choice(
        (
            "flights",
            "trains",
            "buses",
            "cheap flights",
            "the fastest route",
            "a parcel",
            "driving directions",
            "the ferry",
        )
    )
    when, changed = draw.rng.choice(
        ((f" on {day}", f" on {another}"), (f" before {day}", f" after {day}"), ("", f" on {day}"), ("", " and back"))
    )
    frames = (
        "Find {h} from {a} to {b}{w}",
        "{h} from {a} to {b}{w}",
        "I am looking for {h} from {a} to {b}{w}.",
        "I need {h} to {b} from {a}{w}",
        "Show me {h} leaving {a} for {b}{w}",
        "Are there {h} between {a} and {b}, starting in {a}{w}?",
        "{h} {a} to {b}{w}",
    )

    def text(a: str, b: str, w: str) -> str:
        return draw.rng.choice(frames).replace("{h}", how).replace("{a}", a).replace("{b}", b).replace("{w}", w)

    return Request(
        text(one, other, when),
        text(one, other, when),
        (text(other, one, when), text(one, third, when), text(one, other, changed)),
    )


def role(draw: Frames) -> Request:
    """Who does it to whom: the other way round is another question."""
    one, other, third = draw.rng.sample(FAMILIES[draw.rng.choice(PARTIES)], 3)
    frames = draw.rng.choice(ROLES)

    def text(a: str, b: str, frame: str) -> str:
        return frame.replace("{a}", a).replace("{b}", b)

    other_frame = draw.rng.choice(frames)
    return Request(
        text(one, other, frames[0]),
        text(one, other, draw.rng.choice(frames)),
        (text(other, one, frames[0]), text(other, one, other_frame), text(one, third, other_frame)),
    )


def even(draw: Frames) -> Request:
    """Relations that hold both ways: the other way round is the same question."""
    one, other, third = draw.rng.sample(FAMILIES[draw.rng.choice(PARTIES)], 3)
    frames = draw.rng.choice(EVEN)
    first, second = draw.rng.choice(frames), draw.rng.choice(frames)
    order = (other, one) if draw.rng.random() < 0.7 else (one, other)
    again = second.replace("{a}", order[0]).replace("{b}", order[1])
    return Request(
        first.replace("{a}", one).replace("{b}", other), again, (second.replace("{a}", one).replace("{b}", third),)
    )
