"""Sentiment, topic and language of a short text."""

from __future__ import annotations

import json
from collections.abc import Callable

from deployments.models.training.curriculum.draw import Draw
from deployments.models.training.curriculum.task import Task, ask
from deployments.models.training.curriculum.words import split

FAMILY = "classification"

GOOD = split("great wonderful excellent lovely fantastic superb amazing perfect brilliant delightful good pleasant")
BAD = split("terrible awful horrible poor dreadful bad disappointing unpleasant nasty disgusting boring useless")
THINGS = split(
    "food service room film book hotel music coffee staff game phone concert view meal trip museum teacher car"
)
PLAIN = (
    "The {t} was {a}.",
    "I found the {t} {a}.",
    "What a {a} {t}!",
    "We thought the {t} was really {a}.",
    "Honestly, the {t} is {a}.",
    "My friends say the {t} was {a}.",
    "This {t} is {a}, I must say.",
)
NEGATED = (
    "The {t} was not {a} at all.",
    "I did not find the {t} {a}.",
    "Nobody would call the {t} {a}.",
    "The {t} is anything but {a}.",
    "We never thought the {t} was {a}.",
)
NEUTRAL = (
    "The {t} opens at nine.",
    "There is a {t} next to the station.",
    "We talked about the {t} for an hour.",
    "The {t} is on the second floor.",
    "My sister has seen the {t} too.",
    "The {t} costs ten euros.",
)
SENTIMENT = (
    "Is the sentiment positive or negative?",
    "Classify the sentiment: positive or negative.",
    "Positive or negative?",
    "Does this sound positive or negative?",
    "Sentiment (positive or negative)?",
    "Decide if the text is positive or negative.",
    "Say whether it is positive or negative.",
    "Tell me if this is positive or negative.",
    "Is this positive or negative?",
    "Is this text positive or negative?",
    "Tell me if the sentiment is positive or negative.",
)
THREE_WAY = (
    "Is the sentiment positive, negative or neutral?",
    "Classify the sentiment: positive, negative or neutral.",
    "Positive, negative or neutral?",
    "Sentiment (positive, negative or neutral)?",
    "Decide if the text is positive, negative or neutral.",
    "Tell me if this is positive, negative or neutral.",
    "Is this positive, negative or neutral?",
    "Say whether the text is positive, negative or neutral.",
    "Is this text positive, negative or neutral?",
    "Tell me if the sentiment is positive, negative or neutral.",
)
ASPECT = (
    "What is the sentiment about the {t}?",
    "Is the writer positive or negative about the {t}?",
    "Sentiment about the {t}: positive or negative?",
    "How does the writer feel about the {t}, positive or negative?",
    "Tell me how the writer feels about the {t}.",
    "Say if the sentiment about the {t} is positive or negative.",
    "Is the sentiment about the {t} positive or negative?",
    "Positive or negative about the {t}?",
    "Tell me the sentiment about the {t}.",
)
BOTH = (
    "The {a} was {x}, but the {b} was {y}.",
    "I found the {a} {x} and the {b} {y}.",
    "Although the {a} was {x}, the {b} was {y}.",
    "A {x} {a}, but a {y} {b}.",
    "The {a} is {x}. The {b} is {y}.",
)

TOPICS: dict[str, tuple[str, ...]] = {
    "sport": (
        "The team won the match",
        "She scored two goals in the final",
        "The runner broke the record",
        "Our coach trains the players every day",
        "The tennis champion lost the last set",
        "He kicked the ball into the net",
    ),
    "food": (
        "Bake the bread for an hour",
        "Add salt and pepper to the soup",
        "The cook fried the onions in butter",
        "We ate pasta with cheese for dinner",
        "Stir the sugar into the dough",
        "The recipe needs three eggs",
    ),
    "science": (
        "The telescope found a new planet",
        "Atoms are made of smaller particles",
        "The biologist studied the cells",
        "Light travels faster than sound",
        "The chemist mixed two acids in the lab",
        "Gravity pulls the moon",
    ),
    "music": (
        "The band played a new song",
        "She practises the violin every morning",
        "The orchestra tuned its instruments",
        "His melody is in a minor key",
        "The singer recorded an album",
        "The pianist played a sonata",
    ),
    "money": (
        "The bank raised the interest rate",
        "Shares fell on the stock market",
        "He paid back the loan",
        "Taxes are due in April",
        "The company made a profit",
        "She saved money in her account",
    ),
    "weather": (
        "It will rain in the afternoon",
        "A cold wind blows from the north",
        "The storm brought heavy snow",
        "Tomorrow will be sunny and warm",
        "Fog covered the valley",
        "The temperature dropped below zero",
    ),
    "health": (
        "The doctor examined the patient",
        "Wash your hands to avoid the flu",
        "The nurse gave him a pill",
        "She broke her arm and went to hospital",
        "Sleep is good for your heart",
        "The dentist pulled the tooth",
    ),
    "travel": (
        "The train leaves from platform four",
        "We booked a flight to the island",
        "The tourists visited the castle",
        "Our hotel is near the airport",
        "She packed her suitcase for the journey",
        "The ferry crosses the bay twice a day",
    ),
}
TIMES = ("", "", " yesterday", " this week", " again", ", they said", ", as everybody knows", " last year")
TOPIC = (
    "What is the topic: {o}?",
    "Choose the topic: {o}.",
    "Classify the topic ({o}).",
    "Which topic fits: {o}?",
    "Topic? Choose from {o}.",
    "The topic is one of {o}. Which one?",
    "Pick the right topic: {o}.",
    "Is this about {o}?",
    "Tell me the topic: {o}.",
    "Tell me which topic fits, one of {o}.",
    "Is the topic {o}?",
    "Tell me the topic, one of {o}.",
)

LANGUAGES: dict[str, tuple[str, ...]] = {
    "English": (
        "the house is very small and old",
        "where is the big garden",
        "she has two brothers and a dog",
        "we are going to the market today",
        "my friend drinks cold water",
        "they read a good book",
    ),
    "French": (
        "la maison est très petite et vieille",
        "où est le grand jardin",
        "elle a deux frères et un chien",
        "nous allons au marché",
        "mon ami boit de l'eau froide",
        "ils lisent un bon livre",
    ),
    "German": (
        "das Haus ist sehr klein und alt",
        "wo ist der große Garten",
        "sie hat zwei Brüder und einen Hund",
        "wir gehen heute zum Markt",
        "mein Freund trinkt kaltes Wasser",
        "sie lesen ein gutes Buch",
    ),
    "Spanish": (
        "la casa es muy pequeña y vieja",
        "dónde está el jardín grande",
        "ella tiene dos hermanos y un perro",
        "vamos al mercado hoy",
        "mi amigo bebe agua fría",
        "ellos leen un buen libro",
    ),
    "Italian": (
        "la casa è molto piccola e vecchia",
        "dov'è il giardino grande",
        "lei ha due fratelli e un cane",
        "andiamo al mercato oggi",
        "il mio amico beve acqua fredda",
        "loro leggono un buon libro",
    ),
    "Dutch": (
        "het huis is erg klein en oud",
        "waar is de grote tuin",
        "zij heeft twee broers en een hond",
        "we gaan vandaag naar de markt",
        "mijn vriend drinkt koud water",
        "ze lezen een goed boek",
    ),
    "Portuguese": (
        "a casa é muito pequena e velha",
        "onde fica o jardim grande",
        "ela tem dois irmãos e um cachorro",
        "vamos ao mercado hoje",
        "meu amigo bebe água fria",
        "eles leem um bom livro",
    ),
    "Swedish": (
        "huset är mycket litet och gammalt",
        "var är den stora trädgården",
        "hon har två bröder och en hund",
        "vi går till marknaden idag",
        "min vän dricker kallt vatten",
        "de läser en bra bok",
    ),
}
LANGUAGE = (
    "Which language is this?",
    "What language is this text in?",
    "Name the language.",
    "In which language is it written?",
    "Detect the language.",
    "Language?",
    "Say which language this is.",
    "Tell me which language this is.",
    "What language do you see?",
    "What language is it?",
    "Tell me the language.",
)


def placed(draw: Draw, text: str, question: str) -> str:
    """The text and the question, in either order."""
    return draw.choice((f"{text} {question}", f"{text}\n{question}", f"{question}\n{text}", f'{question} "{text}"'))


def label(draw: Draw) -> tuple[str, tuple[str, ...]]:
    """A sentiment and the words that carry it."""
    return draw.choice((("positive", GOOD), ("negative", BAD)))


def plain_sentiment(draw: Draw) -> Task:
    """A feeling in plain words."""
    right, words = label(draw)
    thing, word = draw.unseen(lambda: (draw.choice(THINGS), draw.choice(words)))
    text = draw.choice(PLAIN).format(t=thing, a=word)
    return Task(FAMILY, 1, ask(placed(draw, text, draw.phrase(SENTIMENT))), right)


def topic(draw: Draw, level: int, labels: int) -> Task:
    """One topic of ``labels``."""
    options = draw.sample(list(TOPICS), labels)
    right = draw.choice(options)
    sentence, when = draw.unseen(lambda: (draw.choice(TOPICS[right]), draw.choice(TIMES)))
    listed = ", ".join(options[:-1]) + " or " + options[-1]
    question = draw.phrase(TOPIC).format(o=listed)
    return Task(FAMILY, level, ask(placed(draw, f"{sentence}{when}.", question)), right)


def language(draw: Draw, level: int, labels: int) -> Task:
    """The language of a sentence, of the first ``labels`` of the list."""
    right = draw.choice(list(LANGUAGES)[:labels])
    first, second = draw.unseen(lambda: tuple(draw.sample(LANGUAGES[right], 2)))
    text = draw.choice((f"{first}, {second}", f"{first}; {second}", f"{first}. {second}."))
    text = text[0].upper() + text[1:]
    return Task(FAMILY, level, ask(placed(draw, text, draw.phrase(LANGUAGE))), right)


def negated_sentiment(draw: Draw) -> Task:
    """Negated, plain or without a feeling: three labels."""
    thing = draw.choice(THINGS)
    kind, question = draw.random(), draw.phrase(THREE_WAY)
    if kind < 0.3:
        return Task(FAMILY, 2, ask(placed(draw, draw.choice(NEUTRAL).format(t=thing), question)), "neutral")
    right, words = label(draw)
    thing, word = draw.unseen(lambda: (draw.choice(THINGS), draw.choice(words)))
    if kind < 0.5:
        return Task(FAMILY, 2, ask(placed(draw, draw.choice(PLAIN).format(t=thing, a=word), question)), right)
    opposite = {"positive": "negative", "negative": "positive"}[right]
    return Task(FAMILY, 2, ask(placed(draw, draw.choice(NEGATED).format(t=thing, a=word), question)), opposite)


def aspect(draw: Draw) -> tuple[str, str, str]:
    """A text about two things, the one asked about, and the sentiment about that one."""
    (first, x), (second, y) = label(draw), label(draw)
    a, b, good, poor = draw.unseen(lambda: (*draw.sample(THINGS, 2), draw.choice(x), draw.choice(y)))
    text = draw.choice(BOTH).format(a=a, b=b, x=good, y=poor)
    return (text, a, first) if draw.random() < 0.5 else (text, b, second)


def aspect_sentiment(draw: Draw) -> Task:
    """The sentiment about one of two things."""
    text, thing, right = aspect(draw)
    return Task(FAMILY, 3, ask(placed(draw, text, draw.phrase(ASPECT).format(t=thing))), right)


def sentiment_json(draw: Draw) -> Task:
    """The thing a text is about and the sentiment, as JSON."""
    right, words = label(draw)
    thing, word = draw.unseen(lambda: (draw.choice(THINGS), draw.choice(words)))
    if draw.random() < 0.5:
        text = draw.choice(PLAIN).format(t=thing, a=word)
    else:
        text = draw.choice(NEGATED).format(t=thing, a=word)
        right = {"positive": "negative", "negative": "positive"}[right]
    templates = (
        "Give the subject and the sentiment as JSON.",
        "Return subject and sentiment as JSON.",
        "JSON with subject and sentiment, please.",
        "Classify as JSON: subject, sentiment.",
        "Write the subject and the sentiment as a JSON object.",
        "I need the subject and the sentiment as JSON.",
    )
    answer = json.dumps({"subject": thing, "sentiment": right})
    return Task(FAMILY, 3, ask(placed(draw, text, draw.phrase(templates))), answer)


LEVELS: dict[int, tuple[Callable[[Draw], Task], ...]] = {
    1: (plain_sentiment, lambda draw: topic(draw, 1, 3), lambda draw: language(draw, 1, 4)),
    2: (negated_sentiment, lambda draw: topic(draw, 2, 6), lambda draw: language(draw, 2, 8)),
    3: (aspect_sentiment, sentiment_json),
}
