"""The log of texts: redacted, bounded, in files of its own, and nothing of what cannot be redacted."""

from __future__ import annotations

import json
import logging
import os
import stat
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from cluster.config import MantaConfig
from cluster.telemetry.config import TextsConfig
from cluster.telemetry.log_context import logged_request
from cluster.telemetry.redacted_record import common_length
from cluster.telemetry.text_files import FILE_S, TextFile, TextFiles, expired
from cluster.telemetry.text_log import RedactedTextLog
from router.access.key_format import ApiKey, new_id, new_secret
from router.ports.text_log import LoggedText, RequestTexts
from safety.redacted_head import redacted_head
from tests.cluster.graph import dev_config

MAIL, CARD = "jane@example.com", "4111 1111 1111 1111"
PROMPT = LoggedText("messages[0].content", "user", f"I am {MAIL}, and pay by {CARD}.")
ANSWER = LoggedText("choices[0].text", "model", "Good day.")
TEXTS = RequestTexts(
    "e1", "r1", "acme", "/v1/chat/completions", "fast", 0.0, "finished", ("stop",), (PROMPT,), (ANSWER,), False
)
TRACE = "0af7651916cd43dd8448eb211c80319c"


class Kept:
    """A log of texts in a directory, and what it has lost."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.directory = directory
        self.lost: list[str] = []
        config = TextsConfig(directory=directory, **settings)
        self.files = TextFiles(directory, "r", config.keep_days * 86400, config.max_bytes)
        self.log = RedactedTextLog(config, self.files, {"replica": "r"}, self.lost.append)

    def records(self) -> list[dict[str, Any]]:
        """Ends the log and returns its records."""
        self.log.close()
        return [
            json.loads(line) for path in sorted(self.directory.iterdir()) for line in path.read_bytes().splitlines()
        ]


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    made = Kept(tmp_path / "texts")
    made.log.start()
    yield made
    made.log.close()


def with_prompt(text: str) -> RequestTexts:
    return replace(TEXTS, prompt=(replace(PROMPT, text=text),))


def test_a_record_is_one_object_with_redacted_texts(kept: Kept) -> None:
    with logged_request("r1", lambda: f"00-{TRACE}-b7ad6b7169203331-01"):
        kept.log.offer(TEXTS)

    assert kept.records() == [
        {
            "time": "1970-01-01T00:00:00.000+00:00",
            "replica": "r",
            "request_id": "r1",
            "trace_id": TRACE,
            "span_id": "b7ad6b7169203331",
            "entry": "e1",
            "tenant": "acme",
            "endpoint": "/v1/chat/completions",
            "tier": "fast",
            "outcome": "finished",
            "finish_reasons": ["stop"],
            "prompt": [
                {
                    "field": "messages[0].content",
                    "origin": "user",
                    "text": "I am <EMAIL_ADDRESS>, and pay by <CREDIT_CARD>.",
                }
            ],
            "answers": [{"field": "choices[0].text", "origin": "model", "text": "Good day."}],
            "redacted": {"CREDIT_CARD": 1, "EMAIL_ADDRESS": 1},
            "truncated": False,
        }
    ]
    assert kept.lost == []


HIDDEN = "\u200b"  # a space without width
SECRETS = [
    ApiKey(new_id(), new_secret()).text,
    "AKIAIOSFODNN7EXAMPLE",
    "sk-proj-abcdefghijklmnopqrstuvwx1234567890ABCDEF",
    MAIL,
    CARD,
    f"ja{HIDDEN}ne@exam{HIDDEN}ple.com",
    "-----BEGIN PRIVATE KEY-----\n" + "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n" * 200 + "-----END PRIVATE KEY-----",
]


@pytest.mark.parametrize("secret", SECRETS, ids=range(len(SECRETS)))  # a new key has another name in each worker
@pytest.mark.parametrize("where", ["prompt", "answers", "field"])
def test_personal_data_and_keys_are_in_no_field(kept: Kept, secret: str, where: str) -> None:
    text = LoggedText(f"chat_template_kwargs.{secret}" if where == "field" else "x", "user", f"see {secret} here")
    kept.log.offer(replace(TEXTS, answers=(text,)) if where == "answers" else replace(TEXTS, prompt=(text,)))
    (record,) = kept.records()
    written = json.dumps(record, ensure_ascii=False).replace(HIDDEN, "")
    assert not [line for line in secret.replace(HIDDEN, "").splitlines() if line in written]
    assert sum(record["redacted"].values()) >= 1


@pytest.mark.parametrize("seen", range(1, len(MAIL)))
def test_a_value_that_the_limit_cuts_is_replaced_as_a_whole(tmp_path: Path, seen: int) -> None:
    kept = Kept(tmp_path / "texts", max_characters=256)
    kept.log.start()
    before = ("ab " * 100)[: 255 - seen] + " "
    kept.log.offer(with_prompt(before + MAIL + " b" * 4000))
    (record,) = kept.records()
    assert record["prompt"][0]["text"] == before + "<EMAIL_ADDRESS>"
    assert record["truncated"]


def test_the_longest_texts_are_cut(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "texts", max_characters=1000)
    kept.log.start()
    kept.log.offer(replace(TEXTS, prompt=tuple(LoggedText("x", "user", "ab " * size) for size in (10, 9000, 9000))))
    (record,) = kept.records()
    assert [len(each["text"]) for each in record["prompt"]] == [30, 485, 485]
    assert record["truncated"]


@pytest.mark.parametrize(
    ("lengths", "length"), [([], 0), ([5], 5), ([50], 30), ([10, 10, 10], 10), ([1, 100, 100], 14), ([100] * 40, 0)]
)
def test_the_common_length_fills_what_may_be_logged(lengths: list[int], length: int) -> None:
    assert common_length(lengths, 30) == length
    assert sum(min(each, length) for each in lengths) <= 30


def test_nothing_is_written_of_what_cannot_be_redacted(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(text: str, *_: object) -> None:
        raise ValueError(text)

    monkeypatch.setattr("cluster.telemetry.redacted_record.redacted_head", broken)
    for _ in range(3):
        kept.log.offer(TEXTS)
    while len(kept.lost) < 3:
        threading.Event().wait(0.001)
    monkeypatch.setattr("cluster.telemetry.redacted_record.redacted_head", redacted_head)
    kept.log.offer(TEXTS)

    assert len(kept.records()) == 1
    assert kept.lost == ["redaction"] * 3
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert MAIL not in caplog.text


def test_what_finds_no_room_in_the_queue_is_lost_and_counted(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "texts", max_pending_characters=65_536)
    for _ in range(10):  # nothing writes yet
        kept.log.offer(with_prompt("word " * 4000))
    assert kept.lost == ["full"] * 7
    kept.log.start()
    assert len(kept.records()) == 3


def test_offering_takes_no_time_and_what_was_taken_is_written_at_the_end(kept: Kept) -> None:
    for _ in range(20):
        kept.log.offer(with_prompt(f"I am {MAIL}. " * 500))
    assert len(kept.records()) == 20
    kept.log.offer(TEXTS)  # after its end
    assert kept.lost == ["full"]


def test_a_disk_that_takes_nothing_costs_the_record_and_no_half_of_it_stays(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kept.log.offer(TEXTS)
    while not list(kept.directory.glob("*.jsonl")) or not next(kept.directory.iterdir()).stat().st_size:
        threading.Event().wait(0.001)
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:10]))
    kept.log.offer(TEXTS)
    while not kept.lost:
        threading.Event().wait(0.001)
    monkeypatch.setattr(os, "write", write)
    kept.log.offer(TEXTS)

    assert len(kept.records()) == 2
    assert kept.lost == ["disk"]
    assert MAIL not in caplog.text


def test_only_the_router_can_read_the_files(kept: Kept) -> None:
    kept.log.offer(TEXTS)
    kept.records()
    (path,) = kept.directory.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.directory.stat().st_mode) == 0o700


def test_a_file_is_written_for_a_day_and_a_deleted_one_is_begun_anew(tmp_path: Path) -> None:
    now = 1e9
    files = TextFiles(tmp_path, "r", 1e12, 10**9, lambda: now)
    files.write(b"1\n")
    files.write(b"2\n")
    now += FILE_S + 1
    files.write(b"3\n")
    first, second = sorted(tmp_path.iterdir())
    assert (first.read_bytes(), second.read_bytes()) == (b"1\n2\n", b"3\n")
    second.unlink()
    files.write(b"4\n")
    assert [path.read_bytes() for path in sorted(tmp_path.iterdir())] == [b"1\n2\n", b"4\n"]
    files.close()


def test_a_directory_that_cannot_be_made_is_found_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="Not a directory"):
        Kept(tmp_path / "file" / "texts").log.start()


def test_files_of_routers_that_have_ended_are_deleted_after_their_time_and_no_others(tmp_path: Path) -> None:
    old, other = tmp_path / "texts-gone-1.jsonl", tmp_path / "notes.txt"
    for path in (old, other):
        path.write_text("x")
        os.utime(path, (0, 0))
    kept = Kept(tmp_path, keep_days=1)
    kept.log.start()
    kept.log.close()
    assert list(tmp_path.iterdir()) == [other]


def test_the_oldest_files_make_room() -> None:
    files = [TextFile(Path(str(age)), 10, 100.0 - age) for age in (1, 2, 3, 50)]
    assert [str(each.path) for each in expired(files, 100.0, 40.0, 20)] == ["50", "3"]
    assert expired(files, 100.0, 60.0, 40) == []


def test_a_tenant_cannot_ask_for_texts_that_have_nowhere_to_go() -> None:
    config = dev_config()
    config["router"]["tenants"] = {"dev": {"log_texts": True}}
    with pytest.raises(ValidationError, match=r"telemetry\.texts\.directory"):
        MantaConfig.model_validate(config)
    config["telemetry"] = {"texts": {"directory": "/var/log/manta"}}
    assert MantaConfig.model_validate(config).router.tenants["dev"].log_texts


def test_a_directory_that_hangs_does_not_hold_up_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.telemetry.text_log.CLOSE_S", 0.1)
    kept, hangs, goes_on = Kept(tmp_path / "texts"), threading.Event(), threading.Event()

    def hanging(_: bytes) -> None:
        hangs.set()
        goes_on.wait(30)

    monkeypatch.setattr(kept.files, "write", hanging)
    kept.log.start()
    kept.log.offer(TEXTS)
    kept.log.offer(TEXTS)
    assert hangs.wait(30)
    kept.log.close()
    assert not goes_on.is_set()
    assert kept.lost == ["full"]
    goes_on.set()
    kept.log.close()
