"""The checks of answers, by policy. A new one is one file with its scanner and one line in SCANNERS."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from safety.api import Action, Origin, Passage, Ruling, Verdict
from safety.classification import CLASSIFIER, content_verdict
from safety.compiled_policy import CompiledPolicy
from safety.leak.canary import canary_scanner, marked_place
from safety.leak.prompt_index import prompt_index
from safety.leak.scanner import LeakScanner
from safety.patterns.scanner import PatternScanner
from safety.phrases.scanner import PhraseScanner
from safety.pii.kinds import VERSION as PII_VERSION
from safety.secrets.kinds import VERSION as SECRETS_VERSION
from safety.secrets.kinds import SecretScanner
from safety.streaming.plan import WHOLE_ANSWER, ClassifierRule, Pace, ScannerRule, StreamPlan
from safety.tool_rules import called, needs_arguments, offered


@dataclass(frozen=True, slots=True)
class Inspected:
    """A request whose answers are to be checked, with its passages and the ruling on them. ``streamed``: text of the
    answers is sent as it is generated."""

    passages: Sequence[Passage]
    ruling: Ruling
    streamed: bool = True

    def text_of(self, origin: Origin) -> str:
        """Returns the texts of the passages with this origin, joined, as the model reads them."""
        pairs = zip(self.passages, self.ruling.texts, strict=True)
        return "\n".join(text for passage, text in pairs if passage.origin is origin)


LEAK_VERSION = "1"

MakeScanner = Callable[[CompiledPolicy, Inspected], ScannerRule | None]
"""Returns the rule that a policy asks for; None: it does not ask for it."""


def _phrases(compiled: CompiledPolicy, request: Inspected) -> ScannerRule | None:
    automaton = compiled.phrases
    if automaton is None:
        return None
    return ScannerRule("phrases", automaton.version, lambda: PhraseScanner(automaton), Action.BLOCK)


def _pii(compiled: CompiledPolicy, request: Inspected) -> ScannerRule | None:
    recognisers = compiled.answer_pii
    if not recognisers:
        return None
    action = Action.BLOCK if compiled.policy.pii.answers == "block" else Action.REDACT
    return ScannerRule("pii", PII_VERSION, lambda: PatternScanner(recognisers), action)


def _secrets(compiled: CompiledPolicy, request: Inspected) -> ScannerRule | None:
    secrets = compiled.policy.secrets
    if secrets.answers == "off":
        return None
    return ScannerRule(
        "secrets", SECRETS_VERSION, SecretScanner, Action.BLOCK if secrets.answers == "block" else Action.REDACT
    )


def _prompt_leak(compiled: CompiledPolicy, request: Inspected) -> ScannerRule | None:
    system = request.text_of(Origin.SYSTEM)
    if compiled.policy.prompt_leak == "off" or not system:
        return None
    index, user = prompt_index(system), request.text_of(Origin.USER)
    return ScannerRule("prompt_leak", LEAK_VERSION, lambda: LeakScanner(index, user), Action.BLOCK)


def _canary(compiled: CompiledPolicy, request: Inspected) -> ScannerRule | None:
    token = request.ruling.canary
    if not token or marked_place(request.passages) is None:
        return None
    return ScannerRule("prompt_canary", LEAK_VERSION, lambda: canary_scanner(token), Action.BLOCK)


SCANNERS: tuple[MakeScanner, ...] = (_phrases, _pii, _secrets, _prompt_leak, _canary)
"""Where the spans of two rules overlap, the replacement of the first takes the place of both."""


def answer_plan(compiled: CompiledPolicy, request: Inspected, scanners: Sequence[MakeScanner] = SCANNERS) -> StreamPlan:
    """Returns the plan of checks of the answers to ``request``, by the tenant's policy ``compiled``."""
    rules = [rule for make in scanners if (rule := make(compiled, request)) is not None]
    return StreamPlan(tuple(rules), _classifier(compiled, request.streamed))


def answer_check_versions(compiled: CompiledPolicy) -> list[str]:
    """Returns ``name@version`` of each check that a policy may ask for of answers, whatever the request is."""
    policy, found = compiled.policy, []
    if compiled.phrases is not None:
        found.append(f"phrases@{compiled.phrases.version}")
    if compiled.answer_pii:
        found.append(f"pii@{PII_VERSION}")
    if policy.secrets.answers != "off":
        found.append(f"secrets@{SECRETS_VERSION}")
    if policy.prompt_leak != "off" or policy.prompt_canary != "off":
        found.append(f"prompt_leak@{LEAK_VERSION}")
    if policy.content_answers is not None:
        found.append(f"{CLASSIFIER}@{compiled.classifier.version}")
    return found


def _classifier(compiled: CompiledPolicy, streamed: bool) -> ClassifierRule | None:
    policy, classifier = compiled.policy, compiled.classifier
    content = policy.content_answers
    if content is None:
        return None
    return ClassifierRule(
        classifier,
        lambda scores: content_verdict(content, classifier.version, scores.categories),
        mode=policy.stream if streamed else "hold",  # a whole answer waits for its last check anyway
        on_failure=compiled.failure_action,
        pace=Pace() if streamed else WHOLE_ANSWER,
        recent=compiled.recent_checks,
        awaited=streamed and policy.stream == "hold",
    )


@dataclass(frozen=True, slots=True)
class RoleGate:
    """The tools that a role may call. Implements ``ToolGate``."""

    compiled: CompiledPolicy
    role: str

    def tool(self, name: str) -> Verdict | None:
        """Returns a verdict on calling a tool, by its name alone; None: the call is allowed so far. Rules about
        arguments apply to the complete call."""
        return None if self.holds_call(name) else offered(self.compiled.policy.tools, self.role, name)

    def holds_call(self, name: str) -> bool:
        """Returns whether a rule about arguments concerns this tool, so that its calls are held until they are
        complete."""
        return needs_arguments(self.compiled.policy.tools, self.role, name)

    def call(self, name: str, arguments: str) -> Verdict | None:
        """Returns the verdict that denies a complete call of the tool ``name`` with ``arguments``, in JSON; None: the
        call is allowed."""
        return called(self.compiled.policy.tools, self.role, name, arguments)
