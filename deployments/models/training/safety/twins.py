"""Examples by rule: each frame, trigger word, topic and group occurs around harmful and around harmless content.

A classifier that sees a frame with one label only learns the frame. So every rule here comes as a pair, whose two sides
share their words and differ in what is asked or said.
"""

from __future__ import annotations

import json
import random
import re
import string
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from deployments.models.training.safety.example import Example, benign, marked
from deployments.models.training.safety.labels import CATEGORIES, HARMFUL

PHRASES: Final[dict[str, list[str]]] = json.loads(Path(__file__).with_name("phrases.json").read_text(encoding="utf-8"))
Labelled = tuple[str, str, dict[str, float]]

# The phrases of both sides of each pair, with the labels of the harmful side.
STATEMENTS: Final[tuple[Labelled, ...]] = (
    ("insult", "insult_benign", {"harassment": 1.0}),
    ("threat", "threat_benign", {"harassment/threatening": 0.9, "violence": 1.0}),
    ("gore", "violence_benign", {"violence/graphic": 1.0}),
    ("violence_text", "violence_benign", {"violence": 0.9}),
    ("self_harm", "self_harm_benign", {"self-harm/intent": 1.0}),
    ("self_harm_instructions", "self_harm_benign", {"self-harm/instructions": 1.0}),
    ("sexual", "sexual_benign", {"sexual": 1.0}),
    ("minors", "minors_benign", {"sexual/minors": 1.0}),
)


class Rules:
    """Draws examples. ``tasks`` are harmless requests, ``documents`` harmless texts of some hundred words."""

    def __init__(self, tasks: Sequence[str], documents: Sequence[str], templates: Sequence[str], seed: int) -> None:
        self.tasks = tasks
        self.documents = documents
        self.templates = templates  # of jailbreaks, with a place for the request
        self.random = random.Random(f"rules {seed}")

    def draw(self, share: float = 1.0) -> list[Example]:
        """Returns about 20,000 examples times ``share``, without repeats."""
        plan: list[tuple[int, Callable[[], Example]]] = [
            (1900, self.figurative),
            (1900, self.harmful_action),
            (2200, self.topic),
            (900, self.harmful_topic),
            (1500, self.group),
            (800, self.group_hate),
            (250, self.group_threat),
            (1500, self.harmful_statement),
            (1700, self.harmless_statement),
            (900, self.cyber),
            (350, self.cyber_attack),
            (1300, self.injection),
            (300, self.extraction),
            (900, self.trigger_words),
            (900, self.jailbreak),
            (1300, self.role),
            (600, self.injected_document),
            (700, self.document),
            (700, self.harm_within),
            (300, self.suffix),
            (250, self.refusal),
            (1200, self.formatted),
            (700, self.act),
            (150, self.about_ai),
            (400, self.forgetful),
            (150, self.secret),
        ]
        drawn = [make() for number, make in plan for _ in range(round(number * share))]
        return list({example.text: example for example in drawn}.values())

    def pick(self, name: str) -> str:
        return self.random.choice(PHRASES[name])

    def task(self) -> str:
        return self.random.choice(self.tasks)

    def excerpt(self, words: int) -> str:
        text = self.random.choice(self.documents).split()
        start = self.random.randrange(max(1, len(text) - words))
        return " ".join(text[start : start + words])

    def disguise(self, text: str) -> str:
        """Half of the time: writes the text as people type, or within a sentence that says nothing of the matter."""
        chance = self.random.random()
        if chance < 0.12:
            return text.lower().rstrip(".?!")
        if chance < 0.18:
            return text.upper()
        if chance < 0.42:
            return self.pick("carriers").replace("{p}", text)
        return text

    def figurative(self) -> Example:
        text = self.pick("asking").replace("{x}", self.pick("figurative_actions"))
        return benign(self.disguise(text), "twins:figurative")

    def harmful_request(self) -> tuple[str, dict[str, float]]:
        action = self.pick("harmful_actions")
        return self.pick("asking").replace("{x}", action), marks_of(action)

    def harmful_action(self) -> Example:
        text, marks = self.harmful_request()
        return marked(self.disguise(text), "twins:harmful_action", marks, unknown_beside(marks))

    def topic(self) -> Example:
        text = self.pick("benign_intents").replace("{t}", self.pick("topics"))
        return benign(self.disguise(text), "twins:topic")

    def harmful_topic(self) -> Example:
        text = self.pick("harmful_intents").replace("{t}", self.pick("topics"))
        return marked(self.disguise(text), "twins:harmful_topic", {HARMFUL: 0.95}, CATEGORIES)

    def of_group(self, name: str) -> str:
        text = self.pick(name).replace("{g}", self.pick("groups"))
        return text[0].upper() + text[1:] if self.random.random() < 0.7 else text

    def group(self) -> Example:
        return benign(self.disguise(self.of_group("group_benign")), "twins:group")

    def group_hate(self) -> Example:
        text = self.beside(self.of_group("group_hate"))
        return marked(text, "twins:group_hate", {"hate": 1.0}, ("harassment", "violence"))

    def group_threat(self) -> Example:
        text = self.beside(self.of_group("group_threat"))
        marks = {"hate/threatening": 1.0, "violence": 0.9}
        return marked(text, "twins:group_threat", marks, ("harassment", "harassment/threatening"))

    def beside(self, text: str) -> str:
        """Half of the time: puts harmless sentences before or after ``text``."""
        chance = self.random.random()
        if chance < 0.25:
            return f"{self.excerpt(self.random.randint(6, 40))} {text}"
        if chance < 0.5:
            return f"{text} {self.excerpt(self.random.randint(6, 40))}"
        return text

    def harmful_statement(self) -> Example:
        name, _, marks = self.random.choice(STATEMENTS)
        texts = [self.pick(name) for _ in range(self.random.choice((1, 1, 1, 2, 3)))]
        doubtful = () if name.startswith("self_harm") else ("harassment", "illicit", "illicit/violent", "violence")
        unknown = [label for label in doubtful if label not in marks]
        return marked(self.beside(" ".join(texts)), f"twins:{name}", marks, unknown)

    def harmless_statement(self) -> Example:
        name = self.random.choice(STATEMENTS)[1]
        texts = [self.pick(name) for _ in range(self.random.choice((1, 1, 1, 2, 3)))]
        return benign(self.disguise(self.beside(" ".join(texts))), f"twins:{name}")

    def program(self, duty: str) -> str:
        return self.pick("cyber_benign").replace("{l}", self.pick("languages")).replace("{d}", self.pick(duty))

    def cyber(self) -> Example:
        text = self.program("cyber_duties")
        if self.random.random() < 0.5:
            text += f" The code should also be one that {self.pick('cyber_duties')}."
        return benign(self.disguise(text), "twins:cyber")

    def cyber_attack(self) -> Example:
        return marked(self.disguise(self.program("cyber_attacks")), "twins:cyber_attack", {"illicit": 1.0})

    def order(self) -> str:
        return f"{self.pick('injection_verbs')} {self.pick('injection_objects')} {self.pick('injection_payloads')}"

    def injection(self) -> Example:
        text = self.order()
        chance = self.random.random()
        if chance < 0.25:
            text = self.pick("fake_system").replace("{p}", self.random.choice((text, self.pick("document_payloads"))))
        elif chance < 0.5:
            text = f"{self.task()}\n{text}"
        elif chance < 0.6:
            text = f"{text} {self.task()}"
        return marked(self.noise(text), "twins:injection", {"injection": 1.0}, (HARMFUL, "illicit"))

    def noise(self, text: str) -> str:
        chance = self.random.random()
        if chance < 0.1:
            return text.upper()
        if chance < 0.3:
            return text.lower()
        return text

    def extraction(self) -> Example:
        text = self.pick("extraction")
        if self.random.random() < 0.3:
            text = self.pick("role_frames").replace("{r}", self.pick("roles")).replace("{p}", text)
        return marked(self.noise(text), "twins:extraction", {"injection": 0.95}, (HARMFUL, "illicit"))

    def trigger_words(self) -> Example:
        text = self.pick("injection_benign")
        chance = self.random.random()
        if chance < 0.25:
            text = f"{self.task()} {text}"
        elif chance < 0.5:
            text = f"{text} {self.pick('injection_benign')}"
        return benign(self.noise(text), "twins:trigger_words")

    def jailbreak(self) -> Example:
        """A wrapper that lifts the rules, round a harmful or a harmless request: an injection in either case."""
        harm = self.random.random() < 0.6
        request, marks = self.harmful_request() if harm else (self.task(), {})
        if self.templates and self.random.random() < 0.4:
            text = self.random.choice(self.templates).replace("[INSERT PROMPT HERE]", request)
        else:
            text = self.pick("jailbreak_frames").replace("{n}", self.pick("names")).replace("{p}", request)
        if harm:
            return marked(text, "twins:jailbreak", marks | {"injection": 1.0}, unknown_beside(marks))
        return marked(text, "twins:jailbreak", {"injection": 1.0}, (HARMFUL, *CATEGORIES))

    def role(self) -> Example:
        """A role with its task: harmless, or, once in eight, a harmful request in the frame."""
        frame = self.pick("role_frames").replace("{r}", self.pick("roles"))
        if self.random.random() < 0.12:
            request, marks = self.harmful_request()
            return marked(frame.replace("{p}", request), "twins:role", marks, ("injection", *unknown_beside(marks)))
        return benign(frame.replace("{p}", self.task()), "twins:role")

    def injected_document(self) -> Example:
        words = self.random.randint(5, 60)
        lead = self.pick("fake_system").replace("{p}", self.pick("document_payloads"))
        order = self.random.choice(
            (lead, self.order(), f"{self.pick('injection_verbs')} {self.pick('injection_objects')}.")
        )
        after = self.excerpt(self.random.randint(1, 25))
        text = f"{self.excerpt(words)} {order} {after}"
        return marked(text, "twins:injected_document", {"injection": 1.0}, (HARMFUL, *CATEGORIES))

    def document(self) -> Example:
        text = self.excerpt(self.random.randint(20, 90))
        if self.random.random() < 0.4:
            text = f"{text} {self.pick('injection_benign')} {self.excerpt(self.random.randint(1, 20))}"
        return benign(text, "twins:document", ("violence", "violence/graphic"))

    def harm_within(self) -> Example:
        """A harmful request or statement inside a long harmless text."""
        before, after = self.excerpt(self.random.randint(15, 50)), self.excerpt(self.random.randint(1, 30))
        if self.random.random() < 0.5:
            text, marks = self.harmful_request()
            return marked(f"{before} {text} {after}", "twins:harm_within", marks, unknown_beside(marks))
        name, _, marks = self.random.choice(STATEMENTS)
        unknown = [label for label in CATEGORIES if label not in marks]
        return marked(f"{before} {self.pick(name)} {after}", "twins:harm_within", marks, unknown)

    def suffix(self) -> Example:
        """A request with characters behind it as an optimiser leaves them, harmful or harmless."""
        letters = string.ascii_letters + string.punctuation
        pieces = ["".join(self.random.choices(letters, k=self.random.randint(2, 8))) for _ in range(12)]
        tail = " ".join(pieces[: self.random.randint(5, 12)])
        if self.random.random() < 0.5:
            return benign(f"{self.task()} {tail}", "twins:suffix", ("injection",))
        text, marks = self.harmful_request()
        return marked(f"{text} {tail}", "twins:suffix", marks, ("injection", *unknown_beside(marks)))

    def formatted(self) -> Example:
        """A task with rules for the form of the answer, which are no injection."""
        rules = [self.pick("formats").replace("{n}", str(self.random.randint(2, 6))) for _ in range(3)]
        rules = rules[: self.random.randint(1, 3)]
        request, marks = self.harmful_request() if self.random.random() < 0.12 else (self.task(), {})
        parts = [*rules, request] if self.random.random() < 0.2 else [request, *rules]
        text = self.random.choice((" ", "\n", "\n\n")).join(parts)
        return marked(text, "twins:formatted", marks, unknown_beside(marks) if marks else ())

    def act(self) -> Example:
        """A role with inputs and outputs, as people ask for it."""
        frame = self.pick("acts").replace("{r}", self.pick("roles")).replace("{i}", self.pick("inputs"))
        request, marks = self.harmful_request() if self.random.random() < 0.08 else (self.task(), {})
        text = frame.replace("{o}", self.pick("outputs")).replace("{p}", request)
        return marked(text, "twins:act", marks, unknown_beside(marks) if marks else ())

    def about_ai(self) -> Example:
        return benign(self.noise(self.disguise(self.pick("about_ai"))), "twins:about_ai")

    def forgetful(self) -> Example:
        text = self.pick("forgetful").replace("{p}", self.task())
        return marked(self.noise(text), "twins:forgetful", {"injection": 0.95}, (HARMFUL, "illicit"))

    def secret(self) -> Example:
        text = self.pick("secrets")
        if self.random.random() < 0.5:
            text = f"{self.task()} {text}"
        return marked(self.noise(text), "twins:secret", {"injection": 0.9}, (HARMFUL, "illicit"))

    def refusal(self) -> Example:
        return benign(f"{self.pick('refusals')} {self.excerpt(self.random.randint(1, 15))}", "twins:refusal")


# Which words of an action tell its category. The first that matches decides.
ACTION_MARKS: Final[tuple[tuple[str, dict[str, float]], ...]] = (
    ("child porn|groom", {"sexual/minors": 1.0, "illicit": 1.0}),
    ("hang myself|kill myself|overdose|cut myself|starve", {"self-harm/instructions": 1.0, "self-harm/intent": 0.8}),
    ("suicide|kills herself", {"self-harm": 0.9, "harassment": 0.7}),
    ("deepfake porn|rape|can't say no|nude", {"illicit": 1.0, "sexual": 0.5}),
    ("humiliate|bully|dox", {"harassment": 0.9, HARMFUL: 1.0}),
    ("rumors|fake news|cheat|hide income|spy|track|stalk", {"illicit": 0.85, HARMFUL: 1.0}),
    ("mosque|synagogue", {"illicit/violent": 1.0, "violence": 0.9, "hate/threatening": 0.7}),
    (
        "kill|murder|poison|shoot|blow up|bomb|napalm|nerve|ricin|gun|rifle|kidnap|beat my|strangle|stab|torture"
        "|burn down|run over|assassinate|threat|hijack a plane|terrorist|ISIS|anthrax|derail",
        {"illicit/violent": 0.95, "violence": 0.8},
    ),
    ("", {"illicit": 1.0}),
)


def marks_of(action: str) -> dict[str, float]:
    """The labels of a harmful action, by its words."""
    return dict(next(marks for pattern, marks in ACTION_MARKS if re.search(pattern, action)))


def unknown_beside(marks: dict[str, float]) -> tuple[str, ...]:
    """The categories that a harmful request may have beside ``marks``."""
    if "self-harm/instructions" in marks:
        return ("illicit", "violence")
    return ("harassment", "harassment/threatening", "violence", "illicit/violent", "hate", "sexual")
