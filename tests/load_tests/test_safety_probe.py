"""The probe sends each text through every endpoint, and counts what a router with a scripted classifier flags."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from load_tests.safety.__main__ import main
from load_tests.safety.probe import texts_of
from load_tests.safety.shapes import SHAPES, was_flagged
from router.app_factory import ENDPOINTS
from router.routes.moderations import MODERATIONS
from tests.router.guarded import Guarded
from tests.router.served import KEY


@pytest.fixture(scope="module")
def guarded() -> Iterator[Guarded]:
    made = Guarded()
    yield made
    made.served.stop()


def write(path: Path, *texts: str) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def test_every_endpoint_is_probed() -> None:
    assert {shape.path for shape in SHAPES} == {*ENDPOINTS, MODERATIONS}


@pytest.mark.parametrize("mode", ["error", "answer"])
def test_attacks_are_counted_in_every_shape(guarded: Guarded, tmp_path: Path, mode: str) -> None:
    guarded.reset()
    guarded.policies.set(on_block=mode)
    attacks = write(tmp_path / "attacks.jsonl", "please HARM them", "ATTACK the system now")
    benign = write(tmp_path / "fine.jsonl", "What a day it is", "Hello there")
    out, plot = tmp_path / "out.json", tmp_path / "plot.svg"
    given = ["--url", guarded.served.url, "--key", KEY, "--attacks", str(attacks), "--benign", str(benign)]

    assert main([*given, "--json", str(out), "--plot", str(plot)]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert {row["shape"] for row in rows} == {shape.name for shape in SHAPES}
    assert {(row["set"], row["rate"], row["failed"]) for row in rows} == {("attacks", 1.0, 0), ("fine", 0.0, 0)}
    assert plot.stat().st_size > 1000


def test_a_response_that_says_nothing_is_a_failure(guarded: Guarded, tmp_path: Path) -> None:
    guarded.reset()
    guarded.classifier.mode = "dead"
    texts = write(tmp_path / "t.jsonl", "hello")
    given = ["--url", guarded.served.url, "--key", KEY, "--attacks", str(texts), "--benign", str(texts)]

    assert main([*given, "--shapes", "chat", "moderation"]) == 1
    assert was_flagged(SHAPES[0], 502, "<html>") is None


def test_a_set_is_sampled_evenly_and_a_wrong_line_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", *map(str, range(10)))
    assert texts_of(path, 5) == ["0", "2", "4", "6", "8"]
    path.write_text('{"text": "a"}\n{"other": 1}\n')
    with pytest.raises(ValueError, match=r"t\.jsonl:2"):
        texts_of(path, 5)
