"""``rule``: makes the decision on a request from the verdicts of all checks. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from safety.api import FAULTS_OF_TEXTS, TOOLS, UNTRUSTED, Action, Passage, Ruling, Span, Verdict
from safety.check_policies import DocumentBand
from safety.classification import document_action, passage_spans
from safety.pii.pseudonyms import Pseudonymiser
from safety.policy import PolicyConfig

PII, STRUCTURE = "pii", "structure"
"""The names of checks whose verdicts the policy says more about."""


def rule(policy: PolicyConfig, passages: Sequence[Passage], verdicts: Sequence[Verdict]) -> Ruling:
    """Returns the decision. The most severe verdict decides, and the spans of verdicts that redact are replaced.

    A request that a person should decide on is refused, unless the policy lets it pass meanwhile.
    """
    action = max((verdict.action for verdict in verdicts), key=lambda each: each.severity, default=Action.ALLOW)
    refused = action is Action.BLOCK or (action is Action.REVIEW and policy.review.action != "pass")
    reason = decisive(verdicts) if refused else None
    return Ruling(
        action,
        texts=rewritten_texts(passages, verdicts),
        verdicts=tuple(verdicts),
        unscanned=tuple(dict.fromkeys(each.check for each in verdicts if each.error and not refused)),
        message=policy.refusal if refused else "",
        refused=refused,
        reason=reason,
        refused_field=None if reason is None else field_of(reason, passages),
        as_answer=reason is not None and reason.error is None and reason.check != TOOLS and policy.on_block == "answer",
        policy=policy.version,
    )


def with_document_actions(
    policy: PolicyConfig, passages: Sequence[Passage], verdicts: Sequence[Verdict]
) -> list[Verdict]:
    """Returns the verdicts. Those of structural checks on documents get the policy's action for injections in
    documents, if that drops or quotes the passage."""
    band = policy.injection.documents
    if band is None or band.action not in ("drop", "quote"):
        return list(verdicts)
    return [
        _with_document_action(band, each, passages[each.passage])
        if each.check == STRUCTURE
        and each.action in (Action.BLOCK, Action.REVIEW)
        and each.error is None
        and passages[each.passage].origin in UNTRUSTED
        else each
        for each in verdicts
    ]


def _with_document_action(band: DocumentBand, verdict: Verdict, passage: Passage) -> Verdict:
    action = document_action(band, passage.origin)
    return replace(verdict, action=action, spans=passage_spans(band, passage)) if action is Action.REDACT else verdict


def with_pseudonyms(
    policy: PolicyConfig, passages: Sequence[Passage], verdicts: Sequence[Verdict]
) -> tuple[list[Verdict], Mapping[str, str]]:
    """Returns the verdicts with pseudonyms as the replacements of personal data, and the value of each pseudonym. If
    the policy asks for no pseudonyms, returns the verdicts unchanged and an empty mapping."""
    if policy.pii.requests != "pseudonymise":
        return list(verdicts), {}
    pseudonyms = Pseudonymiser(passage.text for passage in passages)
    replaced = [
        replace(each, spans=pseudonyms.replace(passages[each.passage].text, each.spans)) if each.check == PII else each
        for each in verdicts
    ]
    return replaced, pseudonyms.restored


def field_of(verdict: Verdict, passages: Sequence[Passage]) -> str | None:
    """Returns the field of the request that a verdict is about; None: no single field."""
    if verdict.check == TOOLS:
        return f"tools[{verdict.passage}]"
    if verdict.passage >= len(passages) or (verdict.error is not None and verdict.error not in FAULTS_OF_TEXTS):
        return None
    return passages[verdict.passage].field


def decisive(verdicts: Iterable[Verdict]) -> Verdict | None:
    """Returns the verdict that decides: the first of the most severe ones. A finding comes before a failure of the same
    severity, since the client can react to it."""
    return max(verdicts, key=lambda each: (each.action.severity, each.error is None, each.score), default=None)


def rewritten_texts(passages: Sequence[Passage], verdicts: Iterable[Verdict]) -> tuple[str, ...]:
    """Returns the text of each passage, with the spans of verdicts that redact replaced by their replacements or
    kinds."""
    spans: dict[int, list[Span]] = {}
    for verdict in verdicts:
        if verdict.action is Action.REDACT:
            spans.setdefault(verdict.passage, []).extend(verdict.spans)
    # Equal spans of two checks, such as the marks around a passage, are put in once.
    return tuple(rewritten(passage.text, dict.fromkeys(spans.get(place, ()))) for place, passage in enumerate(passages))


def rewritten(text: str, spans: Iterable[Span]) -> str:
    """Returns ``text`` with each span replaced. Spans that overlap become one, which has the replacement of the first
    of them; an empty span inserts its replacement."""
    pieces, end = [], 0
    for span in sorted(spans, key=lambda each: (each.start, each.end > each.start, -each.end)):
        if span.start < end:  # within a span that is replaced: what reaches beyond it goes as well
            end = max(end, span.end)
            continue
        pieces += [text[end : span.start], f"<{span.kind}>" if span.replacement is None else span.replacement]
        end = span.end
    return "".join((*pieces, text[end:]))
