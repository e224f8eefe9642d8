"""Recognises keys by their prefixes, and JSON Web Tokens."""

from __future__ import annotations

import base64
import binascii
import json

from safety.patterns.recogniser import Candidate, Extent, Recogniser, whole
from safety.secrets.detect_secrets_plugins import MORE

MAX_HELD = 256  # characters of a token that one match can have; the rest follows in parts


def mixed(candidate: Candidate) -> Extent | None:
    """Accepts a key with a digit and with letters of both cases; others are ordinary names."""
    key = candidate.text
    has_all = any(map(str.isdigit, key)) and any(map(str.isupper, key)) and any(map(str.islower, key))
    return whole(candidate) if has_all else None


def has_json_header(candidate: Candidate) -> Extent | None:
    """Accepts a token whose first part is a JSON object in base64url (RFC 7519, section 5)."""
    header = candidate.text.partition(".")[0]
    try:
        decoded = json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))
    except (binascii.Error, ValueError):
        return None
    return whole(candidate) if isinstance(decoded, dict) else None


JSON_WEB_TOKEN = Recogniser(
    kind="JSON_WEB_TOKEN",
    pattern=r"eyJ[A-Za-z0-9_\-]{10,400}+\.[A-Za-z0-9_\-]{4,64}",
    max_length=512,
    boundary="",
    gate=r"e(?:\Z|y(?:\Z|J))",
    specificity=85,
    validate=has_json_header,
    more=r"(?:[A-Za-z0-9_=\-]|\.(?=[A-Za-z0-9_\-])){1,512}",
)
MANTA = Recogniser(
    kind="MANTA_API_KEY",
    pattern=r"sk-manta-[a-z0-9]{12}-[A-Za-z0-9]{43}",
    max_length=68,
    boundary="",
    gate=r"s(?:\Z|k(?:\Z|-(?:\Z|m)))",
    specificity=90,
    more=MORE,
)
OPENAI = Recogniser(
    kind="OPENAI_TOKEN",
    pattern=rf"sk-(?!manta-)[A-Za-z0-9_\-]{{20,{MAX_HELD}}}",
    max_length=MAX_HELD + 8,
    gate=r"s(?:\Z|k(?:\Z|-))",
    specificity=80,
    validate=mixed,
    more=MORE,
)
ANTHROPIC = Recogniser(
    kind="ANTHROPIC_API_KEY",
    pattern=rf"sk-ant-[A-Za-z0-9_\-]{{20,{MAX_HELD}}}",
    max_length=MAX_HELD + 8,
    boundary="",
    gate=r"s(?:\Z|k(?:\Z|-(?:\Z|a)))",
    specificity=86,
    more=MORE,
)
GOOGLE = Recogniser(
    kind="GOOGLE_API_KEY",
    pattern=r"AIza[A-Za-z0-9_\-]{35}",
    max_length=40,
    boundary="",
    gate=r"A(?:\Z|I(?:\Z|z))",
    specificity=80,
    more=MORE,
)
GITHUB = Recogniser(
    kind="GITHUB_TOKEN",
    pattern=rf"github_pat_[A-Za-z0-9_]{{22,{MAX_HELD}}}",
    max_length=MAX_HELD + 16,
    boundary="",
    gate=r"g(?:\Z|i(?:\Z|t(?:\Z|h)))",
    specificity=80,
    more=MORE,
)
HUGGING_FACE = Recogniser(
    kind="HUGGING_FACE_TOKEN",
    pattern=rf"hf_[A-Za-z0-9]{{30,{MAX_HELD}}}",
    max_length=MAX_HELD + 8,
    gate=r"h(?:\Z|f(?:\Z|_))",
    specificity=80,
    validate=mixed,
    more=MORE,
)
STRIPE = Recogniser(
    kind="STRIPE_ACCESS_KEY",
    pattern=rf"(?:[srp]k_(?:live|test)|whsec)_[A-Za-z0-9]{{16,{MAX_HELD}}}",
    max_length=MAX_HELD + 16,
    boundary="",
    gate=r"[srp](?:\Z|k(?:\Z|_))|w(?:\Z|h(?:\Z|s))",
    specificity=80,
    more=MORE,
)

TOKENS = (JSON_WEB_TOKEN, MANTA, OPENAI, ANTHROPIC, GOOGLE, GITHUB, HUGGING_FACE, STRIPE)
