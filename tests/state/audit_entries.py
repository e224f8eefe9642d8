"""Entries of the audit log."""

from __future__ import annotations

import json

from router.ports.audit_store import AuditEntry


def entry(number: int, tenant: str = "acme") -> AuditEntry:
    return AuditEntry(f"e{number}", tenant, json.dumps({"check": "words", "text": "é" * number, "score": 0.5}))
