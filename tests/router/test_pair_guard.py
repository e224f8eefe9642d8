"""The guard refuses pairs that differ in one thing that counts, and leaves ways of saying one thing alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.cache.pair_guard.pair_rules import MAX_CHARACTERS, RULES, refusal
from router.cache.pair_guard.parsed_question import parse_question

REFUSED = [
    ("How do I enable dark mode?", "How do I disable dark mode?", "opposite"),
    ("Enabling the firewall", "disabled the firewalls", "opposite"),
    ("turn the wifi on", "turn the wifi off", "opposite"),
    ("Is it legal to cycle drunk?", "Is it illegal to cycle drunk?", "opposite"),
    ("Can I subscribe?", "Can I unsubscribe?", "opposite"),
    ("How do I log in to my account?", "How do I log out of my account?", "opposite"),
    ("Give me at least 5 ideas", "Give me at most 5 ideas", "opposite"),
    ("List all users", "List no users", "opposite"),
    ("Who is taller?", "Who is shorter?", "opposite"),
    ("Is it not legal?", "Is it not illegal?", "opposite"),
    ("Why does it work?", "Why doesn't it work?", "negation"),
    ("Is it safe to swim here?", "Is it not safe to swim here?", "negation"),
    ("Can I eat this?", "Can’t I eat this?", "negation"),
    ("install version 3.1", "install version 3.10", "number"),
    ("Book a table for two", "Book a table for three", "number"),
    ("Who won in 2016?", "Who won in 2018?", "number"),
    ("Is 5k enough?", "Is 6k enough?", "number"),
    ("Walk 5 miles", "Walk 5 kilometers", "units"),
    ("Is 40GB enough?", "Is 40MB enough?", "units"),
    ("Do you open on Monday?", "Do you open on Tuesday?", "days"),
    ("sort a list in Python", "sort a list in Java", "languages"),
    ("good morning in French", "good morning in German", "languages"),
    ("capital of France", "capital of Germany", "places"),
    ("a red dress", "a blue dress", "things"),
    ("flights from Paris to London", "I need flights to Paris from London", "direction"),
    ("buses to Rome from Oslo", "which buses go from Rome to Oslo?", "direction"),
    ("convert feet to miles", "convert miles to feet", "direction"),
    ("Does Anna report to Tom?", "Does Tom report to Anna?", "exchange"),
    ("does the dog chase the cat", "does the cat chase the dog", "exchange"),
    ("What does read_csv do?", "What does to_csv do?", "identifier"),
    ("What is a HashMap?", "What is a TreeMap?", "identifier"),
    ("Who is Anna Smith?", "Who is Peter Smith?", "name"),
    ("Marie Curie was born where?", "Rosa Parks was born where?", "name"),
    ("Tell me of Anna Smith.", "Tell me of Peter Jones.", "name"),
    ("When was it built?", "Where was it built?", "asked"),
    ("Is it warm at -5 degrees?", "Is it warm at 5 degrees?", "number"),
    ("What is minus 3 squared?", "What is 3 squared?", "number"),
    ("Wake me at 5 am", "Wake me at 5 pm", "half of the day"),
    ("Do you open at 8:30am?", "Do you open at 8:30 P.M.?", "half of the day"),
    ("What can I get for $100?", "What can I get for €100?", "units"),
    ("Is £20 enough?", "Is 20 dollars enough?", "units"),
    ("What does a == b mean?", "What does a != b mean?", "operator"),
    ("if x<5 then", "if x>5 then", "operator"),
    ("What is 5 + 3?", "What is 5 - 3?", "operator"),
    ("what is 12*4", "what is 12/4", "operator"),
    ("What does '&&' do in bash?", "What does '||' do in bash?", "operator"),
    ("The best gift you ever received", "The best gift you have ever given", "opposite"),
    ("Is it the same frame?", "Is it a different frame?", "opposite"),
    ("¿Cómo activo el modo oscuro?", "¿Cómo desactivo el modo oscuro?", "not english"),
    ("Wie schalte ich das Licht ein?", "Wie schalte ich das Licht aus?", "not english"),
    ("Quem foi o primeiro presidente?", "Quem foi o último presidente?", "not english"),
    ("如何打开深色模式？", "如何关闭深色模式？", "not english"),
    ("Как включить тёмный режим?", "Как выключить тёмный режим?", "not english"),
    ("How do I turn it on?", "Comment est-ce que je peux le faire ?", "not english"),
    ("Is 🍎 healthy?", "Is 🍔 healthy?", "unread"),
    ("What is the derivative of x²?", "What is the derivative of x³?", "unread"),
    ("What does 猫 mean in English?", "What does 犬 mean in English?", "unread"),
    ("Crack the hash " + "ab" * 64, "Crack the hash " + "cd" * 64, "unread"),
]  # fmt: skip

LEFT_ALONE = [
    ("What is a résumé?", "What is a resume?"),
    ("Is it 20 °C?", "Is it 20 C?"),
    ("Thanks 🙂 where is it?", "Where is it?"),
    ("What does 'por favor' mean?", "What is the meaning of 'por favor'?"),
    ("Where can I get a good café au lait?", "Where do I get good café au lait?"),
    ("kubectl logs", "kubectl logs of a pod"),
    ("Hello!", "Hello"),
    ("How do I lose weight?", "What is the best way to lose weight?"),
    ("It is not illegal", "It is legal"),
    ("How far is 5 km?", "How far is 5 kilometers?"),
    ("Is $1,000 a lot?", "Is $1000 a lot?"),
    ("Is 5k a lot?", "Is 5,000 a lot?"),
    ("three apples", "3 apples"),
    ("difference between Java and Python", "difference between Python and Java"),
    ("Is Trump president of the US?", "Is Donald Trump president of America?"),
    ("Why isn't it working?", "Why is it not working?"),
    ("Is it raining in China?", "Is it raining in China now?"),
    ("Is Chinese food good?", "Is food in China good?"),
    ("How do I learn Python quickly?", "How do I quickly learn Python?"),
    ("what's my income", "what do I earn, my income"),
    ("What does read_csv do?", "what does READ_CSV do"),
    ("How can I sort a list in python", "Sorting lists in Python"),
    ("turn the light on", "turn on the light"),
    ("Explain recursion", "Describe recursion"),
    ("Who sells cakes in Bath?", "Where can I order a cake in Bath?"),
    ("How To Lose Weight Fast", "What Is The Best Way To Lose Weight"),
    ("How do I take a test?", "How do I give a test?"),
    ("What is -5 plus 2?", "What is negative 5 plus 2?"),
    ("Is covid-19 over?", "Is COVID 19 over?"),
    ("Who ruled from 1990-1995?", "Who ruled in 1990 to 1995?"),
    ("I am 5 minutes late", "5 minutes late, am I?"),
    ("Is $20 enough?", "Are 20 dollars enough?"),
    ("What does a >= b mean?", "What does a ≥ b mean?"),
    ("Is it legal and/or safe?", "Is it legal or safe?"),
    ("Is C++ hard?", "Is it hard, C++?"),
    ("Is a well-known x-ray safe?", "Are well known x-rays safe?"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other", "reason"), REFUSED)
def test_a_difference_that_counts_is_refused_in_both_orders(one: str, other: str, reason: str) -> None:
    assert refusal(one, other) is not None
    assert RULES[reason](parse_question(one), parse_question(other))
    assert refusal(other, one) is not None


@pytest.mark.parametrize(("one", "other"), LEFT_ALONE)
def test_another_way_of_saying_it_is_left_alone(one: str, other: str) -> None:
    assert refusal(one, other) is None
    assert refusal(other, one) is None


FRAGMENTS = """
is it not un legal illegal from Paris to London 5 6 miles km enable disable on off who when in Python Java can't
read_csv HashMap than more less at least most Tom Ann the and don't _ .. ' % 3.10 $1,000 ?
"""
WORDS = st.sampled_from(tuple(FRAGMENTS.split()))
TEXTS = st.lists(WORDS, max_size=12).map(" ".join) | st.text(max_size=60)


@given(TEXTS, TEXTS)
def test_the_order_of_a_pair_makes_no_difference(one: str, other: str) -> None:
    assert (refusal(one, other) is None) == (refusal(other, one) is None)


@given(TEXTS)
def test_a_text_is_never_refused_to_itself_whatever_its_case_or_spaces(text: str) -> None:
    assert refusal(text, text) is None
    if text.isascii():
        assert refusal(text, f" {text} ") is None


@pytest.mark.parametrize(
    "text", ["a_" * 1900, "turn " * 700, "from a to " * 390, "1,000," * 600, "A.b" * 1200, "(" * 3900]
)
def test_long_and_hostile_texts_take_little_time(text: str) -> None:
    refusal(text, text[:-2] + "zz")


def test_texts_that_are_too_long_to_compare_are_refused_unless_they_are_equal() -> None:
    long = "word " * MAX_CHARACTERS
    assert refusal(long, long + "more") == "length"
    assert refusal(long, long) is None
