"""A usage report asks for the finest sums that its whole range still has."""

from __future__ import annotations

import pytest

from router.errors import InvalidRequestError
from router.ledger.usage_report import question_of
from router.ports.ledger_store import Resolution

NOW = 1_800_000_000.0
HOUR, DAY = 3600, 86_400


@pytest.mark.parametrize(
    ("age", "length", "resolution"),
    [
        (HOUR, HOUR, Resolution.MINUTE),
        (DAY, DAY, Resolution.MINUTE),
        (DAY + HOUR, DAY + HOUR, Resolution.HOUR),
        (10 * DAY, HOUR, Resolution.HOUR),
        (61 * DAY, 61 * DAY, Resolution.HOUR),
        (80 * DAY, 80 * DAY, Resolution.DAY),
        (100 * DAY, HOUR, Resolution.DAY),
    ],
)
def test_a_range_is_read_from_sums_that_are_still_kept(age: float, length: float, resolution: Resolution) -> None:
    start = NOW - age
    question = question_of({"start": str(int(start)), "end": str(int(start + length))}, NOW, None)

    assert question.query.resolution is resolution
    assert question.query.start_ms <= start * 1000
    assert question.query.end_ms >= (start + length) * 1000


@pytest.mark.parametrize(("width", "age"), [("1m", 3 * DAY), ("1h", 63 * DAY), ("1d", 801 * DAY)])
def test_intervals_that_are_gone_are_refused(width: str, age: float) -> None:
    start = int(NOW - age)
    parameters = {"start": str(start), "end": str(start + HOUR), "bucket_width": width}

    with pytest.raises(InvalidRequestError) as raised:
        question_of(parameters, NOW, None)

    assert raised.value.field == "bucket_width"
