"""OpenAI's own description of createChatCompletion, turned into requests by schemathesis."""

from __future__ import annotations

import gzip
import json
import os
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance

from tests.router.openai_spec import SPEC
from tests.router.served import KEY, Served

PATH = "/chat/completions"
EXAMPLES = int(os.environ.get("MANTA_SCHEMATHESIS_EXAMPLES", "60"))
"""In the suite; 500 for a thorough run."""


def load_operation() -> dict[str, Any]:
    """The specification cut down to the one operation; a stand-in where it is absent, or nothing could be collected."""
    if not SPEC.exists():
        stand_in = {"post": {"responses": {"200": {"description": "OK"}}}}
        return {"openapi": "3.1.0", "info": {"title": "absent", "version": "0"}, "paths": {PATH: stand_in}}
    spec: dict[str, Any] = json.loads(gzip.decompress(SPEC.read_bytes()))
    spec["paths"] = {PATH: {"post": spec["paths"][PATH]["post"]}}
    return spec


operation = schemathesis.openapi.from_dict(load_operation())


@pytest.mark.skipif(not SPEC.exists(), reason=f"OpenAI's specification is not at {SPEC}")
@operation.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_request_by_the_specification_breaks_the_server(case: Any, served: Served) -> None:
    if isinstance(case.body, dict):
        case.body["model"] = "fast"  # else every case ends at the unknown model
    case.call_and_validate(
        base_url=f"{served.url}/v1",
        headers={"authorization": f"Bearer {KEY}"},
        checks=[not_a_server_error, content_type_conformance, response_schema_conformance],
    )
