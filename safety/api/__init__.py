"""The interface of safety to the other packages: passages, verdicts, rulings, and ports.

Before generation a ``Guard`` inspects the passages of a request and returns a ``Ruling``. During and after generation a
``StreamScanner`` per check reads each text of the answer as it grows, and a ``TextClassifier`` scores it in pieces.
``Oversight`` is the port to the people who review texts that a check is unsure of, and to the audit log.
"""

from __future__ import annotations

from safety.api.check import Check, Scan, StreamScanner
from safety.api.classifier import (
    ClassifierBusyError,
    ClassifierUnavailableError,
    Moderation,
    Scores,
    TextClassifier,
    TextTooLongError,
)
from safety.api.guard import AnswerGuard, Guard
from safety.api.moderator import Inspection, Release, TextModerator
from safety.api.oversight import (
    DEFAULT_TERMS,
    AuditRecord,
    Oversight,
    ReviewOutcome,
    ReviewTerms,
    ReviewUnavailableError,
)
from safety.api.passage import UNTRUSTED, Origin, Passage, Subject, TextUse
from safety.api.policy_admin import (
    DEFAULT_POLICY,
    InvalidPolicyError,
    PolicyAdmin,
    PolicyDocument,
    PolicyStore,
    PolicyStoreError,
)
from safety.api.ruling import Ruling
from safety.api.verdict import (
    FAULTS_OF_TEXTS,
    TOO_MUCH_ENCODED,
    TOOLS,
    UNREADABLE,
    UNREADABLE_POLICY,
    Action,
    Span,
    Stage,
    Verdict,
)

__all__ = [
    "DEFAULT_POLICY",
    "DEFAULT_TERMS",
    "FAULTS_OF_TEXTS",
    "TOOLS",
    "TOO_MUCH_ENCODED",
    "UNREADABLE",
    "UNREADABLE_POLICY",
    "UNTRUSTED",
    "Action",
    "AnswerGuard",
    "AuditRecord",
    "Check",
    "ClassifierBusyError",
    "ClassifierUnavailableError",
    "Guard",
    "Inspection",
    "InvalidPolicyError",
    "Moderation",
    "Origin",
    "Oversight",
    "Passage",
    "PolicyAdmin",
    "PolicyDocument",
    "PolicyStore",
    "PolicyStoreError",
    "Release",
    "ReviewOutcome",
    "ReviewTerms",
    "ReviewUnavailableError",
    "Ruling",
    "Scan",
    "Scores",
    "Span",
    "Stage",
    "StreamScanner",
    "Subject",
    "TextClassifier",
    "TextModerator",
    "TextTooLongError",
    "TextUse",
    "Verdict",
]
