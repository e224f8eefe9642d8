"""The place of OpenAI's own description of its API."""

from __future__ import annotations

from pathlib import Path

SPEC = Path(__file__).resolve().parents[3] / "shared" / "data" / "openai" / "openapi.json.gz"
