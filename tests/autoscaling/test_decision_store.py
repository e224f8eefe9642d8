"""What is stored of pins."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from cluster.autoscaling.decision_store import read_pin
from cluster.autoscaling.snapshot import Pin

PIN = Pin("fast", 3, 1_767_600_000.0, "launch")


def test_a_pin_is_read_as_it_was_stored() -> None:
    assert read_pin(json.dumps(asdict(PIN)).encode()) == PIN


@pytest.mark.parametrize("stored", [b"", b"not JSON", b"[]", b'{"tier": "fast"}', b'{"another": "release"}'])
def test_a_pin_that_cannot_be_read_is_left_out(stored: bytes, caplog: pytest.LogCaptureFixture) -> None:
    assert read_pin(stored) is None
    assert "cannot be read" in caplog.text
