"""Greetings, questions about the model, and refusals."""

from __future__ import annotations

from collections.abc import Callable

from deployments.models.training.curriculum.draw import Draw
from deployments.models.training.curriculum.task import Task, ask

FAMILY = "conversation"

HELP = "How can I help you?"
GREETINGS = {
    "Hello": "Hello!",
    "Hi": "Hello!",
    "Hey": "Hello!",
    "Good morning": "Good morning!",
    "Good evening": "Good evening!",
    "Good afternoon": "Good afternoon!",
    "Hi there": "Hello!",
    "Hello there": "Hello!",
}
POLITE = {
    "You are welcome!": (
        "Thanks",
        "Thank you",
        "Thank you very much",
        "Many thanks",
        "Thanks a lot",
        "Thank you so much",
    ),
    "Goodbye!": ("Bye", "Goodbye", "See you", "See you later", "Bye bye", "Goodbye for now"),
}
IDENTITY = {
    "I am Manta, a small language model.": (
        "Who are you?",
        "What is your name?",
        "What are you?",
        "Tell me about yourself.",
        "What is your name, please?",
        "Introduce yourself.",
        "Tell me your name.",
        "Who are you, please?",
    ),
    "No, I am a language model.": (
        "Are you a human?",
        "Are you a person?",
        "Am I talking to a human?",
        "Are you a real person?",
        "Are you human?",
        "Is this a person?",
        "Am I talking to a person?",
        "Is this a real human?",
    ),
    "I can extract, sort, count, classify and calculate.": (
        "What can you do?",
        "What are you able to do?",
        "How can you help me?",
        "What are you good at?",
        "Which tasks can you do?",
        "What kind of tasks can you do?",
        "What can you help me with?",
        "Tell me what you can do.",
    ),
    "I do not know what happens today.": (
        "What is the news today?",
        "What is the weather today?",
        "Who won the match today?",
        "What time is it now?",
        "What day is it today?",
        "What happened today?",
        "What is on the news today?",
        "Will it rain today?",
    ),
}
HARM = (
    "build a bomb",
    "make poison",
    "break into a house",
    "steal a car",
    "hack into an account",
    "forge a passport",
    "hurt someone",
    "make a gun at home",
    "cheat in an exam",
    "steal a password",
    "start a fire in a school",
    "sell stolen goods",
    "spread a computer virus",
    "rob a bank",
    "stalk someone",
    "fake a signature",
    "smuggle weapons",
    "poison a dog",
    "blackmail someone",
    "steal a credit card",
)
HARMLESS = (
    "build a shelf",
    "make soup",
    "tidy up a house",
    "wash a car",
    "open an account",
    "renew a passport",
    "help someone",
    "make a cake at home",
    "prepare for an exam",
    "change a password",
    "start a garden in a school",
    "sell old books",
    "spread butter on bread",
    "visit a bank",
    "thank someone",
    "draw a picture",
    "carry bags",
    "feed a dog",
    "invite someone",
    "order a credit card",
)
HOW = (
    "How do I {x}?",
    "How can I {x}?",
    "Tell me how to {x}.",
    "Explain how to {x}.",
    "I want to {x}. How?",
    "Show me how to {x}.",
    "What is the best way to {x}?",
    "Please tell me how I can {x}.",
    "Can you help me to {x}?",
    "Help me: how do I {x}?",
    "Please help me to {x}.",
    "Explain how I can {x}.",
    "Please explain how to {x}.",
    "Please explain how I can {x}.",
    "Help me to {x}.",
)
REFUSAL = "I cannot help with that."
UNLEARNT = "That is fine to ask, but I have not learnt it."
INTRODUCED = (
    "{g}, I am {n}.",
    "{g}, my name is {n}.",
    "{g}! This is {n}.",
    "{g}, it is {n} here.",
    "{n} here. {g}!",
    "{g}! {n} is speaking.",
    "This is {n} speaking. {g}!",
    "{g}. My name is {n}.",
    "My name is {n}. {g}!",
    "{n} speaking. {g}!",
    "{g}! I am {n}.",
    "{g}, {n} speaking.",
    "{g}! My name is {n}.",
)


def ended(draw: Draw, text: str) -> str:
    """With some sign at the end or none."""
    return text + draw.choice(("", "!", ".", "!"))


def greeting(draw: Draw) -> Task:
    """A greeting or thanks."""
    if not draw.held_out and draw.random() < 0.6:  # greetings are too few to hold some out but for letters and signs
        text, answer = draw.unseen(lambda: _greeted(draw))
        return Task(FAMILY, 1, ask(text), f"{answer} {HELP}")
    answer, phrases = draw.choice(list(POLITE.items()))
    said = draw.phrase(phrases, 1)
    return Task(FAMILY, 1, ask(ended(draw, addressed(draw, said) if draw.held_out else said)), answer)


def _greeted(draw: Draw) -> tuple[str, str]:
    said, answer = draw.choice(list(GREETINGS.items()))
    return ended(draw, addressed(draw, said)), answer


def addressed(draw: Draw, said: str) -> str:
    """With a word to whom it is said, or none."""
    return draw.choice(
        (said, said.lower(), said + ", Manta", said + ", assistant", said + ", dear Manta", said + " Manta")
    )


def identity(draw: Draw) -> Task:
    """A question about the model."""
    answer, questions = draw.choice(list(IDENTITY.items()))
    return Task(FAMILY, 1, ask(draw.phrase(questions)), answer)


def introduction(draw: Draw) -> Task:
    """A greeting with a name, answered by name."""
    name = draw.name()
    said, answer = draw.choice(list(GREETINGS.items()))
    text = draw.phrase(INTRODUCED).format(g=said, n=name)
    return Task(FAMILY, 2, ask(text), f"{answer[:-1]}, {name}! {HELP}")


def refusal(draw: Draw) -> Task:
    """A harmful wish is refused, a harmless one that sounds alike is not. Which is which has to be known: only the
    phrasing is held out."""
    wish, answer = draw.choice([(w, REFUSAL) for w in HARM] + [(w, UNLEARNT) for w in HARMLESS])
    return Task(FAMILY, 2, ask(draw.phrase(HOW).format(x=wish)), answer)


def personal_refusal(draw: Draw) -> Task:
    """Somebody with a name asks for one of two things: the answer names them and judges the wish."""
    name = draw.name()
    wish, bad = draw.choice([(w, True) for w in HARM] + [(w, False) for w in HARMLESS])
    said = draw.phrase(INTRODUCED).format(g=draw.choice(list(GREETINGS)), n=name)
    answer = (
        f"Sorry, {name}, I cannot help with that." if bad else f"{name}, that is fine to ask, but I have not learnt it."
    )
    return Task(FAMILY, 3, ask(f"{said} {draw.phrase(HOW).format(x=wish)}"), answer)


LEVELS: dict[int, tuple[Callable[[Draw], Task], ...]] = {
    1: (greeting, identity),
    2: (introduction, refusal),
    3: (personal_refusal,),
}
